//! Which release files are believed.

use crate::keys::{self, BIRTH, How, Maker, SIGNED, Shape, Subkey};
use bramble_debian::openpgp::{Keyring, Refusal};
use bramble_debian::release::{Freshness, Release, ReleaseError};

const DAY: u64 = 86_400;

const TEXT: &str = "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 31 Jan 2026 00:00:00 UTC\nDescription: x\n- a line with a dash\nSHA256:\n";

fn ring(makers: &[&Maker]) -> Keyring {
    let bytes: Vec<u8> = makers.iter().flat_map(|m| m.keyring()).collect();
    Keyring::from_bytes("test", &bytes).unwrap()
}

fn verify(message: &str, ring: &Keyring) -> Result<Release, ReleaseError> {
    Release::verify(message.as_bytes(), "trixie", ring, Freshness::at(SIGNED + DAY))
}

/// The one refusal of a message with one signature.
fn refusal(message: &str, ring: &Keyring) -> Refusal {
    match verify(message, ring) {
        Err(ReleaseError::Untrusted { refusals }) if refusals.len() == 1 => refusals[0].clone(),
        other => panic!("expected one refusal, got {other:?}"),
    }
}

fn refusal_of(shape: Shape) -> Refusal {
    let maker = Maker::new(1, shape);
    refusal(&maker.sign(TEXT), &ring(&[&maker]))
}

fn with_subkey(subkey: Subkey) -> Shape {
    Shape { subkey: Some(subkey), ..Shape::default() }
}

#[test]
fn a_primary_key_and_a_subkey_may_sign() {
    let primary = Maker::good(1);
    let release = verify(&primary.sign(TEXT), &ring(&[&primary])).unwrap();
    assert_eq!(release.codename, "trixie");
    assert_eq!(release.signatures[0].certificate, primary.fingerprint());
    assert_eq!(release.signatures[0].made, SIGNED);

    let subkey = Maker::new(2, with_subkey(Subkey::default()));
    let release = verify(&subkey.sign(TEXT), &ring(&[&primary, &subkey])).unwrap();
    assert_eq!(release.signatures[0].certificate, subkey.fingerprint());
}

#[test]
fn a_key_that_is_not_pinned_is_refused() {
    let (pinned, other) = (Maker::good(1), Maker::good(2));
    let issuer = other.fingerprint();
    assert_eq!(refusal(&other.sign(TEXT), &ring(&[&pinned])), Refusal::UnknownKey { issuer });
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let (pinned, other, revoked) =
        (Maker::good(1), Maker::good(2), Maker::new(3, Shape { revoked: true, ..Shape::default() }));
    let ring = ring(&[&pinned, &revoked]);
    let release = verify(&keys::sign_all(TEXT, &[&other, &revoked, &pinned]), &ring).unwrap();
    assert_eq!(release.signatures.len(), 1);
    let error = verify(&keys::sign_all(TEXT, &[&other, &revoked]), &ring).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("unknown key") && text.contains("revoked"), "{text}");
}

#[test]
fn a_changed_text_is_refused() {
    let maker = Maker::good(1);
    let key = maker.fingerprint();
    let signed = maker.sign(TEXT);
    let ring = ring(&[&maker]);
    for (old, new) in
        [("Origin: Debian", "Origin: Debiam"), ("Suite: stable\n", ""), ("SHA256:\n", "SHA256:\n x\n")]
    {
        let changed = signed.replace(old, new);
        assert_ne!(changed, signed);
        assert_eq!(refusal(&changed, &ring), Refusal::Mismatch { key: key.clone() });
    }
    // Line ends and trailing blanks are not part of what is signed.
    assert!(verify(&signed.replace("Origin: Debian\n", "Origin: Debian  \r\n"), &ring).is_ok());
}

#[test]
fn expired_and_revoked_keys_are_refused() {
    let expired = refusal_of(Shape { life: Some(30 * DAY), ..Shape::default() });
    assert!(matches!(expired, Refusal::Expired { days: 1, .. }), "{expired:?}");
    assert!(matches!(refusal_of(Shape { revoked: true, ..Shape::default() }), Refusal::Revoked { .. }));
    let alive = Maker::new(1, Shape { life: Some(32 * DAY), ..Shape::default() });
    assert!(verify(&alive.sign(TEXT), &ring(&[&alive])).is_ok());
}

#[test]
fn a_name_without_the_keys_own_signature_binds_nothing() {
    let refused = refusal_of(Shape { unsigned_name: true, ..Shape::default() });
    assert!(matches!(refused, Refusal::BadCertificate { .. }), "{refused:?}");
}

#[test]
fn subkeys_need_a_binding_a_confirmation_and_a_primary_key_that_lives() {
    let maker = Maker::new(1, with_subkey(Subkey { revoked: true, ..Subkey::default() }));
    let key = maker.signing_fingerprint();
    assert_eq!(refusal(&maker.sign(TEXT), &ring(&[&maker])), Refusal::Revoked { key });

    let expired = refusal_of(with_subkey(Subkey { life: Some(DAY), ..Subkey::default() }));
    assert!(matches!(expired, Refusal::Expired { days: 30, .. }), "{expired:?}");

    for (subkey, word) in [
        (Subkey { foreign_binding: true, ..Subkey::default() }, "not bound"),
        (Subkey { unconfirmed: true, ..Subkey::default() }, "not confirmed"),
        (Subkey { not_for_signing: true, ..Subkey::default() }, "not meant for signing"),
    ] {
        let refused = refusal_of(with_subkey(subkey)).to_string();
        assert!(refused.contains(word), "{refused}");
    }

    let orphan = Shape { revoked: true, ..with_subkey(Subkey::default()) };
    assert!(matches!(refusal_of(orphan), Refusal::Revoked { .. }));
    let orphan = Shape { life: Some(DAY), ..with_subkey(Subkey::default()) };
    assert!(matches!(refusal_of(orphan), Refusal::Expired { .. }));
}

#[test]
fn signatures_have_their_own_rules() {
    let maker = Maker::good(1);
    let ring = ring(&[&maker]);
    let refused = |how: How| refusal(&maker.sign_how(TEXT, &how), &ring);
    let usual = How::default;
    assert!(matches!(refused(How { life: Some(3600), ..usual() }), Refusal::Unfit { what: "has expired" }));
    let refused_for = |how: How| refused(how).to_string();
    assert!(refused_for(How { critical_unknown: true, ..usual() }).contains("critical part"));
    assert!(refused_for(How { without_time: true, ..usual() }).contains("when it was made"));
    assert_eq!(refused(How { made: SIGNED + 4 * DAY, ..usual() }), Refusal::Future { days: 3 });
    assert!(matches!(refused(How { made: BIRTH - DAY, ..usual() }), Refusal::BadCertificate { .. }));
    assert!(verify(&maker.sign_how(TEXT, &How { life: Some(90 * DAY), ..usual() }), &ring).is_ok());
}

#[test]
fn a_clock_before_the_key_says_so() {
    let maker = Maker::good(1);
    let signed = maker.sign(TEXT);
    let error = Release::verify(signed.as_bytes(), "trixie", &ring(&[&maker]), Freshness::at(0)).unwrap_err();
    assert!(error.hint().contains("clock"), "{error}");
}

#[test]
fn age_and_suite() {
    let maker = Maker::good(1);
    let ring = ring(&[&maker]);
    let dated = TEXT.replace("Description: x", "Valid-Until: Sat, 07 Feb 2026 00:00:00 UTC");
    let signed = maker.sign(&dated);
    let at = |fresh: Freshness| Release::verify(signed.as_bytes(), "trixie", &ring, fresh);
    assert!(at(Freshness::at(SIGNED + 6 * DAY)).is_ok());
    let error = at(Freshness::at(SIGNED + 21 * DAY)).unwrap_err();
    assert_eq!(error.to_string(), "it was valid until 2026-02-07 00:00 UTC, which is 14 days ago");
    assert!(at(Freshness { expired: 15 * DAY, ..Freshness::at(SIGNED + 21 * DAY) }).is_ok());
    assert!(at(Freshness::at(SIGNED - DAY / 2)).is_ok());

    // The signature was made early enough, the text says otherwise.
    let early = maker.sign_how(&dated, &How { made: BIRTH + 1, ..How::default() });
    let error =
        Release::verify(early.as_bytes(), "trixie", &ring, Freshness::at(SIGNED - 5 * DAY)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it is dated 2026-01-31 00:00 UTC, which is 5 days ahead of this computer's clock"
    );

    let other =
        Release::verify(signed.as_bytes(), "trixie-security", &ring, Freshness::at(SIGNED)).unwrap_err();
    assert!(matches!(other, ReleaseError::OtherSuite { .. }), "{other}");
}

#[test]
fn debians_keys_are_the_ones_the_readme_lists() {
    let readme = include_str!("../../keys/README.md").replace(' ', "");
    let fingerprints = Keyring::debian().unwrap().fingerprints();
    assert_eq!(fingerprints.len(), 6);
    for fingerprint in fingerprints {
        assert!(readme.contains(&fingerprint), "{fingerprint}");
    }
}

#[test]
fn keyrings_that_are_none() {
    assert!(Keyring::from_bytes("x", b"").is_err());
    assert!(Keyring::from_bytes("x", b"hello").is_err());
}

/// `sha1/make.sh` made these.
#[test]
fn weak_hashes_and_short_keys_are_refused() {
    macro_rules! case {
        ($name:literal) => {{
            let ring = Keyring::from_bytes($name, include_bytes!(concat!("sha1/", $name, ".gpg"))).unwrap();
            refusal(include_str!(concat!("sha1/", $name, ".InRelease")), &ring).to_string()
        }};
    }
    let signed = case!("signed-by-sha1");
    assert!(signed.contains("no longer safe"), "{signed}");
    let bound = case!("bound-by-sha1");
    assert!(bound.contains("no valid signature of its own"), "{bound}");
    let short = case!("short-key");
    assert!(short.contains("too weak"), "{short}");
}
