//! Another key for the file: whoever knew the old one reads nothing that is written from now on.

use super::{SECTION, SecretsFile, entries, find, find_mut, pair, recipients, replace, seal_key};
use crate::cipher;
use crate::identity::Recipient;
use crate::secret::{NoRandomness, random_bytes};
use crate::tree::{Comment, Line, Map, Node, Scalar, walk};

/// Kinds of keys in sops' section that this crate cannot encrypt for.
const FOREIGN: [&str; 6] = ["kms", "gcp_kms", "azure_kv", "hc_vault", "pgp", "hckms"];

/// The file's key cannot be changed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// Somebody would be locked out, for whom this crate cannot encrypt.
    #[error("the file is also for {0}, for which only sops itself can encrypt")]
    Foreign(String),
    /// It is not for this recipient.
    #[error("the file is not for {0}")]
    Unknown(String),
    /// Nobody would be left.
    #[error("{0} is the only one who can open the file")]
    Last(String),
    /// A comment does not decrypt, and would be lost.
    #[error("a comment at `{at}` does not decrypt, and would be lost")]
    Comment {
        /// Keys to the map that it stands in, joined with dots.
        at: String,
    },
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl SecretsFile {
    /// Takes a recipient away and gives the file another key: the old one is known to who leaves. What they have
    /// read, they know; and what lies in git's history they can still open. In memory: [`SecretsFile::save`] writes.
    pub fn remove_recipient(&mut self, recipient: &Recipient) -> Result<(), RekeyError> {
        let gone = recipient.to_string();
        let mut left = recipients(&self.section);
        let before = left.len();
        left.retain(|r| *r != gone);
        if left.len() == before {
            return Err(RekeyError::Unknown(gone));
        }
        if left.is_empty() {
            return Err(RekeyError::Last(gone));
        }
        self.rekey_for(left)
    }

    /// Gives the file another key, for the same recipients. In memory: [`SecretsFile::save`] writes.
    pub fn rekey(&mut self) -> Result<(), RekeyError> {
        self.rekey_for(recipients(&self.section))
    }

    fn rekey_for(&mut self, left: Vec<String>) -> Result<(), RekeyError> {
        for kind in FOREIGN {
            match find(&self.section, kind) {
                Some(Node::List(items)) if entries(items).next().is_some() => {
                    return Err(RekeyError::Foreign(kind.to_string()));
                }
                _ => {}
            }
        }
        let key = random_bytes::<32>()?;
        let mut sealed = Vec::new();
        for text in left {
            let recipient: Recipient = text.parse().map_err(|_| RekeyError::Foreign(text.clone()))?;
            sealed.push(Line::Entry(Node::Map(vec![
                pair("recipient", Scalar::quoted(text)),
                pair("enc", Scalar::quoted(seal_key(&key, &recipient)?)),
            ])));
        }
        // Everything that can fail comes before anything is changed.
        let mut comments = Vec::new();
        self.open_comments(&self.top, &mut Vec::new(), &mut comments)?;
        let mut comments = comments.into_iter();
        self.key = key;
        let SecretsFile { top, rule, key, section, .. } = self;
        reseal_comments(top, &mut Vec::new(), &mut |comment, keys| {
            if let Some(Some(text)) = comments.next() {
                comment.text = cipher::encrypt_comment(key, keys, text.expose())?;
            }
            Ok::<(), NoRandomness>(())
        })?;
        walk(top, &mut Vec::new(), &mut |scalar, keys| {
            if rule.encrypts(keys) && scalar.value.is_some() {
                scalar.raw = None;
            }
            Ok::<(), NoRandomness>(())
        })?;
        replace(section, "age", Node::List(sealed));
        debug_assert!(find_mut(top, SECTION).is_none());
        self.changed = true;
        Ok(())
    }

    /// The text of every encrypted comment, `None` for one in clear, in the order of [`reseal_comments`].
    fn open_comments(
        &self,
        map: &Map,
        keys: &mut Vec<String>,
        found: &mut Vec<Option<crate::secret::SecretText>>,
    ) -> Result<(), RekeyError> {
        for line in map {
            match line {
                Line::Comment(comment) => found.push(self.open_comment(comment, keys)?),
                Line::Entry((key, node)) => {
                    keys.push(key.clone());
                    self.open_comments_of(node, keys, found)?;
                    keys.pop();
                }
            }
        }
        Ok(())
    }

    fn open_comments_of(
        &self,
        node: &Node,
        keys: &mut Vec<String>,
        found: &mut Vec<Option<crate::secret::SecretText>>,
    ) -> Result<(), RekeyError> {
        match node {
            Node::Scalar(_) => Ok(()),
            Node::Map(map) => self.open_comments(map, keys, found),
            Node::List(items) => {
                for line in items {
                    match line {
                        Line::Comment(comment) => found.push(self.open_comment(comment, keys)?),
                        Line::Entry(node) => self.open_comments_of(node, keys, found)?,
                    }
                }
                Ok(())
            }
        }
    }

    fn open_comment(
        &self,
        comment: &Comment,
        keys: &[String],
    ) -> Result<Option<crate::secret::SecretText>, RekeyError> {
        if !cipher::is_sealed(&comment.text) {
            return Ok(None);
        }
        self.comment_text(comment, keys).map(Some).ok_or_else(|| RekeyError::Comment { at: keys.join(".") })
    }
}

/// Visits the comments in the order of the file.
fn reseal_comments<E>(
    map: &mut Map,
    keys: &mut Vec<String>,
    visit: &mut impl FnMut(&mut Comment, &[String]) -> Result<(), E>,
) -> Result<(), E> {
    for line in map {
        match line {
            Line::Comment(comment) => visit(comment, keys)?,
            Line::Entry((key, node)) => {
                keys.push(key.clone());
                reseal_comments_of(node, keys, visit)?;
                keys.pop();
            }
        }
    }
    Ok(())
}

fn reseal_comments_of<E>(
    node: &mut Node,
    keys: &mut Vec<String>,
    visit: &mut impl FnMut(&mut Comment, &[String]) -> Result<(), E>,
) -> Result<(), E> {
    match node {
        Node::Scalar(_) => Ok(()),
        Node::Map(map) => reseal_comments(map, keys, visit),
        Node::List(items) => {
            for line in items {
                match line {
                    Line::Comment(comment) => visit(comment, keys)?,
                    Line::Entry(node) => reseal_comments_of(node, keys, visit)?,
                }
            }
            Ok(())
        }
    }
}
