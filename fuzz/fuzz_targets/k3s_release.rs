//! k3s' release file is loaded from outside or given by the user: whatever it holds, taking it apart ends with a release
//! or an error.
#![no_main]

use bramble_kube::k3s::release::Release;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for arch in bramble_api::names::Arch::ALL {
        let _ = Release::read(bytes, arch, "v1.36.4+k3s1");
    }
});
