//! Strategic merge: part of a config laid over it.
//!
//! Talos merges by the Go types of its fields (`config/merge` of its machinery): mappings key by key, lists end to
//! end, single values replace. The exceptions are few and stand here as tables, found by reading the types: fields
//! with `merge:"replace"` and types with a `Merge` of their own. `$patch: delete` takes away
//! (`configloader/internal/decoder`).

use super::{Part, PatchError};
use crate::config::Documents;
use crate::versions::Release;
use crate::yaml::{Map, Value};

/// Something to take away.
#[derive(Clone, Debug)]
pub struct Deletion {
    document: Id,
    path: Vec<String>,
    /// In a list: the first key of the entry that is meant, and its value.
    entry: Option<(String, String)>,
}

/// What makes a document one: the old one has neither kind nor name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id {
    version: String,
    kind: String,
    name: String,
}

impl Id {
    fn of(document: &Map) -> Id {
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        Id { version: text("apiVersion"), kind: text("kind"), name: text("name") }
    }
}

/// Fields whose list or mapping is replaced whole. Kind, and path in the document.
const REPLACED: &[(&str, &str)] = &[
    ("", "cluster.network.podSubnets"),
    ("", "cluster.network.serviceSubnets"),
    ("", "cluster.apiServer.auditPolicy"),
    ("KubeAuditPolicyConfig", "configuration"),
    ("KubeCredentialProviderConfig", "configuration"),
    ("KubeAuthenticationConfig", "configuration"),
    ("KubeStaticPodConfig", "pod"),
    ("KubeNetworkConfig", "podSubnets"),
    ("KubeNetworkConfig", "serviceSubnets"),
    ("BGPInstanceConfig", "advertise"),
    ("BGPInstanceConfig", "importRoutes"),
    ("BGPInstanceConfig", "neighbors"),
    ("NetworkRuleConfig", "ingress"),
    ("NetworkRuleConfig", "portSelector.ports"),
    ("CRIBaseRuntimeSpecConfig", "overrides"),
];

/// The same from 1.14 on only.
const REPLACED_SINCE_1_14: &[(&str, &str)] = &[("ResolverConfig", "searchDomains.domains")];

/// Lists whose entries are merged with those of the same key. Kind, path with `[]` for lists, and the keys of which
/// the first that the entry states decides.
const KEYED: &[(&str, &str, &[&str])] = &[
    ("", "machine.network.interfaces", &["interface", "deviceSelector"]),
    ("", "machine.network.interfaces[].vlans", &["vlanId"]),
    ("", "cluster.apiServer.admissionControl", &["name"]),
    ("ExtensionServiceConfig", "configFiles", &["mountPath"]),
];

/// The list whose entries are *replaced* by those of the same key.
const REPLACED_ENTRIES: (&str, &str, &str) = ("ImageVerificationConfig", "rules", "image");

/// Certificates with their keys in the main document. Talos reads both halves as bytes, and a half that the patch does
/// not state as bytes too, none of them: such a pair is replaced whole (`x509.PEMEncodedCertificateAndKey`, and
/// `x509.PEMEncodedKey`, which has one half).
const PAIRS: &[(&str, &[&str])] = &[
    ("machine.ca", BOTH),
    ("cluster.ca", BOTH),
    ("cluster.aggregatorCA", BOTH),
    ("cluster.etcd.ca", BOTH),
    ("cluster.serviceAccount", &["key"]),
];
const BOTH: &[&str] = &["crt", "key"];

/// Such pairs of registries, whose names have dots: how their path begins and ends.
const REGISTRY_PAIRS: (&str, &str) = ("machine.registries.config.", ".tls.clientIdentity");

/// Mappings of text to text, wherever they stand: `0` in them is a text and not the zero of a number. The last key.
const TEXT_MAPS: &[&str] = &[
    "sysctls",
    "sysfs",
    "params",
    "nodeLabels",
    "nodeAnnotations",
    "nodeTaints",
    "labels",
    "annotations",
    "taints",
    "env",
    "variables",
    "headers",
    "extraManifestHeaders",
];

/// Takes a document of a patch apart.
pub(super) fn part(document: Value) -> Result<Part, PatchError> {
    let Value::Map(mut map) = document else {
        return Err(PatchError::Kind("a document of it is no mapping".into()));
    };
    let id = Id::of(&map);
    if (id.kind.is_empty()) != (id.version.is_empty()) {
        return Err(PatchError::Kind("a document of it has `kind` or `apiVersion` without the other".into()));
    }
    if id.kind.is_empty()
        && !["machine", "cluster", "debug", "persist"].iter().any(|key| map.get(key).is_some())
    {
        return Err(PatchError::Kind(
            "it has neither `machine`, `cluster`, nor `kind` with `apiVersion`".into(),
        ));
    }
    let mut finder = Finder { id, deletions: Vec::new(), path: Vec::new() };
    let gone = finder.map(&mut map, Parent::Document)?;
    // What only says which document is meant lays nothing over.
    let empty = gone
        || map
            .iter()
            .all(|(key, value)| matches!(key, "version" | "kind" | "name") && value.as_str().is_some());
    let document = (!empty || finder.deletions.is_empty()).then_some(map);
    Ok(Part { deletions: finder.deletions, document })
}

#[derive(Clone, Copy, PartialEq)]
enum Parent {
    Document,
    Map,
    List,
}

struct Finder {
    id: Id,
    deletions: Vec<Deletion>,
    path: Vec<String>,
}

impl Finder {
    /// Finds what a mapping takes away and removes the words for it. `true`: nothing of it is left.
    fn map(&mut self, map: &mut Map, parent: Parent) -> Result<bool, PatchError> {
        if map.get("$patch").and_then(Value::as_str) == Some("delete") {
            let entry = match parent {
                Parent::List => {
                    let first = map.iter().find(|(key, _)| *key != "$patch");
                    let (key, value) = first.ok_or_else(|| {
                        self.fit("`$patch: delete` in a list wants a key to find the entry by")
                    })?;
                    Some((key.to_string(), value.as_str().unwrap_or_default().to_string()))
                }
                _ if self.path.iter().any(|part| part.starts_with('[')) => {
                    return Err(self.fit("nothing can be deleted within an entry of a list"));
                }
                Parent::Document if self.id.kind.is_empty() => {
                    return Err(self.fit("the main document cannot be deleted"));
                }
                Parent::Document | Parent::Map => None,
            };
            self.deletions.push(Deletion { document: self.id.clone(), path: self.path.clone(), entry });
            return Ok(true);
        }
        let had = map.len();
        let keys: Vec<String> = map.iter().map(|(key, _)| key.to_string()).collect();
        for key in keys {
            let Some(value) = map.get_mut(&key) else { continue };
            self.path.push(key.clone());
            let gone = self.value(value, Parent::Map)?;
            self.path.pop();
            if gone {
                map.remove(&key);
            }
        }
        Ok(had > 0 && map.is_empty())
    }

    fn value(&mut self, value: &mut Value, parent: Parent) -> Result<bool, PatchError> {
        match value {
            Value::Map(map) => self.map(map, parent),
            Value::List(items) => {
                let had = items.len();
                let mut kept = Vec::with_capacity(had);
                for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
                    self.path.push(format!("[{index}]"));
                    let gone = self.value(&mut item, Parent::List)?;
                    self.path.pop();
                    if !gone {
                        kept.push(item);
                    }
                }
                *items = kept;
                Ok(had > 0 && items.is_empty())
            }
            Value::Plain(_) | Value::Text(_) => Ok(false),
        }
    }

    fn fit(&self, what: &str) -> PatchError {
        PatchError::Fit { place: self.path.join("."), what: what.into() }
    }
}

/// Applies one document of a patch.
pub(super) fn apply(part: &Part, config: &mut Documents, release: Release) -> Result<(), PatchError> {
    for deletion in &part.deletions {
        let Some(place) = config.0.iter().position(|document| Id::of(document) == deletion.document) else {
            // As Talos: what is not there need not be taken away.
            continue;
        };
        if deletion.path.is_empty() {
            config.0.remove(place);
        } else if let Some(document) = config.0.get_mut(place) {
            delete(document, &deletion.path, deletion)?;
        }
    }
    let Some(wanted) = &part.document else { return Ok(()) };
    let id = Id::of(wanted);
    match config.0.iter_mut().find(|document| Id::of(document) == id) {
        Some(document) => {
            let mut merge = Merge { release, kind: &id.kind, path: String::new() };
            merge.maps(document, wanted)
        }
        None => {
            config.0.push(wanted.clone());
            Ok(())
        }
    }
}

fn delete(map: &mut Map, path: &[String], deletion: &Deletion) -> Result<(), PatchError> {
    let missing = |what: &str| PatchError::Fit { place: deletion.path.join("."), what: what.into() };
    match path {
        [] => Ok(()),
        // An unset field of Talos' own is as good as deleted; a key of a mapping must be there.
        [last] => {
            map.remove(last);
            Ok(())
        }
        [key, rest @ ..] => match map.get_mut(key) {
            Some(Value::Map(inner)) => {
                if let ([last], true) = (rest, TEXT_MAPS.contains(&key.as_str()))
                    && inner.get(last).is_none()
                {
                    return Err(missing("nothing is there to delete"));
                }
                delete(inner, rest, deletion)
            }
            Some(Value::List(items)) => {
                let (name, value) = deletion.entry.as_ref().ok_or_else(|| missing("it is in a list"))?;
                let place = items.iter().position(|item| item.text_at(&[name]) == Some(value));
                items.remove(place.ok_or_else(|| missing("the list has no such entry to delete"))?);
                Ok(())
            }
            _ => Err(missing("nothing is there to delete")),
        },
    }
}

struct Merge<'a> {
    release: Release,
    kind: &'a str,
    /// Keys joined with dots, `[]` for an entry of a list.
    path: String,
}

impl Merge<'_> {
    fn below<T>(&mut self, part: &str, act: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 && part != "[]" {
            self.path.push('.');
        }
        self.path.push_str(part);
        let result = act(self);
        self.path.truncate(length);
        result
    }

    fn is_text_map(&self) -> bool {
        let last = self.path.rsplit('.').next().unwrap_or("");
        TEXT_MAPS.contains(&last)
    }

    /// The halves of a certificate with its key; none where the path leads to something else.
    fn pair(&self) -> &'static [&'static str] {
        let (begin, end) = REGISTRY_PAIRS;
        if !self.kind.is_empty() {
            return &[];
        }
        match PAIRS.iter().find(|(path, _)| *path == self.path) {
            Some((_, halves)) => halves,
            None if self.path.starts_with(begin) && self.path.ends_with(end) => BOTH,
            None => &[],
        }
    }

    /// Arguments of programs: each is replaced, be it one text or a list. flannel's are a plain list.
    fn is_arguments(&self) -> bool {
        self.path.rsplit('.').next() == Some("extraArgs")
    }

    fn maps(&mut self, left: &mut Map, right: &Map) -> Result<(), PatchError> {
        let (texts, arguments) = (self.is_text_map(), self.is_arguments());
        for (key, value) in right.iter() {
            if value.is_null() {
                continue;
            }
            match left.get_mut(key) {
                Some(old) if !old.is_null() && !arguments => {
                    self.below(key, |merge| merge.values(old, value, texts))?;
                }
                _ => left.set(key.to_string(), value.clone()),
            }
        }
        Ok(())
    }

    fn values(&mut self, left: &mut Value, right: &Value, text_map: bool) -> Result<(), PatchError> {
        let place = (self.kind, self.path.as_str());
        let since = self.release >= Release::V1_14 && REPLACED_SINCE_1_14.contains(&place);
        if since || REPLACED.contains(&place) {
            *left = right.clone();
            return Ok(());
        }
        if left.as_str().is_some() && right.as_str().is_some() {
            if !self.is_zero(right, text_map) {
                *left = right.clone();
            }
            return Ok(());
        }
        match (&mut *left, right) {
            (Value::Map(left), Value::Map(right)) => {
                for half in self.pair() {
                    let stated = right.get(half).filter(|v| !v.is_null()).cloned();
                    left.set(*half, stated.unwrap_or_else(|| Value::text(String::new())));
                }
                self.maps(left, right)?;
            }
            (Value::List(left), Value::List(right)) => self.lists(left, right)?,
            // What is not there may be spelt as an empty text.
            (old, right) if old.as_str() == Some("") => *left = right.clone(),
            _ => {
                let what = "the patch has another kind of value here (text, list, mapping)".to_string();
                return Err(PatchError::Fit { place: self.path.clone(), what });
            }
        }
        Ok(())
    }

    /// Whether a value is its type's zero, which Talos takes for "not said". Truth values always count, and so do
    /// bytes in base64: an authority's empty key is one.
    fn is_zero(&self, value: &Value, text_map: bool) -> bool {
        let bytes = [".crt", ".key"].iter().any(|end| self.path.ends_with(end)) && self.kind.is_empty();
        match value {
            Value::Text(text) => text.is_empty() && !bytes,
            Value::Plain(text) => text == "0" && !text_map,
            _ => false,
        }
    }

    fn lists(&mut self, left: &mut Vec<Value>, right: &[Value]) -> Result<(), PatchError> {
        if let Some((.., keys)) =
            KEYED.iter().find(|(kind, path, _)| *kind == self.kind && *path == self.path)
        {
            for item in right {
                let key = keys
                    .iter()
                    .find(|key| item.at(&[key]).is_some_and(|v| !v.is_null() && v.as_str() != Some("")));
                let same = |other: &&mut Value| match key {
                    Some(key) => other.at(&[key]).is_some_and(|v| alike(v, item.at(&[key]))),
                    None => false,
                };
                match (left.iter_mut().find(same), item) {
                    (Some(Value::Map(old)), Value::Map(new)) => {
                        self.below("[]", |merge| merge.maps(old, new))?;
                    }
                    _ => left.push(item.clone()),
                }
            }
            return Ok(());
        }
        let (kind, path, key) = REPLACED_ENTRIES;
        if (kind, path) == (self.kind, self.path.as_str()) {
            // Entries are looked for among those that were there, as Talos looks.
            let known = left.len();
            for item in right {
                let place = left[..known].iter().rposition(|old| old.text_at(&[key]) == item.text_at(&[key]));
                match place {
                    Some(place) => left[place] = item.clone(),
                    None => left.push(item.clone()),
                }
            }
            return Ok(());
        }
        left.extend_from_slice(right);
        Ok(())
    }
}

/// Equal whatever the quotes and the order of keys.
fn alike(a: &Value, b: Option<&Value>) -> bool {
    match (a, b) {
        (Value::Map(a), Some(Value::Map(b))) => {
            a.len() == b.len() && a.iter().all(|(key, value)| alike(value, b.get(key)))
        }
        (a, Some(b)) => a.as_str().is_some() && a.as_str() == b.as_str(),
        (_, None) => false,
    }
}
