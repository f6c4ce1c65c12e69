//! Words that two crates hold apart because neither knows the other: this one knows both.

/// What `check` refuses in `os.firmware` and what the build refuses are one list.
#[test]
fn the_words_of_config_txt_that_the_build_sets_are_one_list() {
    assert_eq!(bramble_spec::OWN_FIRMWARE_WORDS, bramble_image::firmware::RESERVED);
}

/// A label that `check` takes is one that the kubelet sets: none is dropped on the way, whatever the distribution.
#[test]
fn a_label_that_is_taken_is_not_dropped() {
    let keys = [
        "tier",
        "example.org/tier",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "kubernetes.io/x",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/rack",
        "node.kubernetes.io/instance-type",
        "node.kubernetes.io/anything",
        "x.node.kubernetes.io/anything",
        "kubelet.kubernetes.io/anything",
        "node-role.kubernetes.io/worker",
        "node-restriction.kubernetes.io/a",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/x",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "k8s.io/a",
        "notk8s.io/a",
    ];
    for key in keys {
        let text = format!(
            "apiVersion: bramble.home.arpa/v1alpha1\nkind: Cluster\nmetadata: {{ name: home }}\nspec:\n  kubernetes: \
             {{ version: v1.36.3 }}\n  network: {{ subnet: 192.168.1.0/24 }}\n  nodes:\n    - {{ name: n1, role: \
             control-plane, board: uefi-amd64, address: 192.168.1.11, labels: {{ \"{key}\": a }} }}\n"
        );
        let taken = bramble_spec::parse(&text, "bramble.yaml").is_ok();
        assert_eq!(taken, bramble_kube::names::kubelet_may_set(key), "{key}");
    }
}
