//! Manifest, offer and statement of keys: any bytes give a document in its one form, or a refusal.
#![no_main]

use bramble_api::manifest::Manifest;
use bramble_api::names::{Arch, Board};
use bramble_api::release::{Document, Keys, Offer, Signed};
use libfuzzer_sys::fuzz_target;

fn one_form<D: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<D> {
    let signed = Signed::<D>::parse(bytes).ok()?;
    assert!(signed.to_area().is_some(), "what is read fits a slot");
    let document = signed.read().ok()?;
    assert_eq!(serde_json::to_vec(&document).unwrap(), signed.json);
    Some(document)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(manifest) = one_form::<Manifest>(bytes) {
        for arch in Arch::ALL {
            if manifest.check_fit(arch, 2 << 30).is_ok() {
                assert!(manifest.root_size + manifest.verity_size <= 2 << 30);
                assert!(manifest.boards.iter().all(|board: &Board| board.arch() == arch));
            }
        }
    }
    one_form::<Offer>(bytes);
    one_form::<Keys>(bytes);
});
