//! Sites and patches by the hundred, the same ones for the same seed.

/// Numbers from a seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// A `bramble.yaml` for a Talos of this minor.
pub fn site(seed: u64, minor: u16) -> String {
    let r = &mut Random::new(seed);
    let planes = *r.pick(&[1, 3, 5]);
    let workers = r.below(4);
    let kubernetes = *r.pick(&["v1.34.5", "v1.35.2", "v1.36.3"]);
    let cni = *r.pick(&["flannel", "none", "{ kind: flannel, backend: vxlan }"]);
    let security = *r.pick(&["privileged", "baseline", "restricted"]);
    let vip = planes > 1 && r.chance(70);
    let endpoint = if vip {
        "\n    endpoint: { address: 10.1.0.5, vip: talos, sans: [api.home.arpa, 10.9.9.9] }"
    } else if r.chance(50) {
        "\n    endpoint: { address: 10.1.0.6, port: 7443, vip: external }"
    } else if planes > 1 {
        "\n    endpoint: { address: 10.1.0.10, sans: [k8s.example.org] }"
    } else {
        ""
    };
    let mut text = format!(
        "apiVersion: bramble.home.arpa/v1alpha1\nkind: Cluster\nmetadata: {{ name: site{seed} }}\nspec:\n  kubernetes:\n    \
         distribution: talos\n    version: {kubernetes}\n    cni: {cni}\n    podSecurity: {security}\n    \
         scheduleOnControlPlane: {}\n    auditLog: {}{endpoint}\n  network:\n    subnet: 10.1.0.0/24\n",
        r.chance(50),
        r.chance(70),
    );
    for (percent, line) in [
        (80, "    gateway: 10.1.0.1\n"),
        (70, "    dns: [10.1.0.1, 9.9.9.9]\n"),
        (70, "    ntp: [10.1.0.1, time.cloudflare.com]\n"),
        (
            30,
            "    domain: example.org\n    clusterDomain: kube.example.org\n    pods: 10.244.0.0/16\n    services: 10.96.0.0/16\n",
        ),
        (
            20,
            "    proxy: { http: \"http://10.1.0.2:3128\", https: \"http://10.1.0.2:3128\", noProxy: [.home.arpa] }\n",
        ),
        (20, "    trustedCAs: [\"@ca.pem\"]\n"),
        (
            30,
            "    registries:\n      docker.io: { mirrors: [\"https://mirror.home.arpa/v2/docker\"] }\n      \
             registry.home.arpa:5000: { username: me, password: { secret: registry }, ca: \"@ca.pem\" }\n",
        ),
    ] {
        if r.chance(percent) {
            text += line;
        }
    }
    let arch = *r.pick(&["uefi-amd64", "uefi-arm64", "pi4", "pi5"]);
    text += &format!("  board: {arch}\n  addressing: {}\n", r.pick(&["static", "dhcp"]));
    if r.chance(30) {
        text += "  mtu: 9000\n";
    }
    if r.chance(50) {
        text += "  os: { sysctls: { vm.swappiness: 10, net.core.somaxconn: 65535 }, modules: [br_netfilter, nvme_tcp], kernelArgs: [net.ifnames=0] }\n";
    }
    text += &format!("  talos:\n    version: v1.{minor}.{}\n", if minor == 13 { 9 } else { 1 });
    if r.chance(40) {
        text += "    schematic: { extensions: [siderolabs/iscsi-tools, siderolabs/util-linux-tools] }\n";
    }
    if r.chance(30) {
        let keys: &[&str] = if arch.starts_with("pi") {
            &["nodeID", "static", "none"]
        } else {
            &["tpm", "nodeID", "static", "none"]
        };
        text += &format!("    encryption: {{ state: {}, ephemeral: {} }}\n", r.pick(keys), r.pick(keys));
    }
    if r.chance(20) && !arch.starts_with("pi") {
        text += "    secureBoot: true\n";
    }
    if r.chance(30) {
        text += "    volumes:\n      - { kind: VolumeConfig, name: EPHEMERAL, provisioning: { maxSize: 100GiB } }\n      \
                 - { kind: SwapVolumeConfig, name: swap1, provisioning: { diskSelector: { match: system_disk }, minSize: 1GiB, maxSize: 2GiB } }\n";
    }
    if r.chance(40) {
        text += "    patches:\n      - machine: { certSANs: [talos.home.arpa] }\n      \
                 - { apiVersion: v1alpha1, kind: WatchdogTimerConfig, device: /dev/watchdog0, timeout: 2m0s }\n";
    }
    text += "  nodes:\n";
    for index in 0..planes + workers {
        let role = if index < planes { "control-plane" } else { "worker" };
        text += &format!(
            "    - name: n{index}\n      role: {role}\n      address: 10.1.0.{}\n      mac: dc:a6:32:00:00:{index:02x}\n",
            10 + index
        );
        let disk = *r.pick(&[
            "serial: S4EV\\\"x",
            "wwid: naa.5000c500a0b1c2d3",
            "serial: ABC, model: Samsung SSD 990",
        ]);
        text += &format!("      talos: {{ install: {{ disk: {{ {} }} }} }}\n", disk.replace("\\\"", "'"));
        if r.chance(30) {
            text += "      labels: { tier: shelf, example.org/rack: r1 }\n      taints: [\"dedicated=media:NoSchedule\", \"slow:PreferNoSchedule\"]\n";
        }
        if r.chance(30) {
            text += &format!(
                "      interfaces:\n        - {{ name: storage, vlan: 20, address: 10.20.0.{}/24, mtu: 1500, routes: [{{ to: 10.30.0.0/16, via: 10.20.0.1 }}] }}\n        \
                 - {{ name: lan2, mac: \"02:00:00:00:01:{index:02x}\" }}\n        - {{ name: far, mac: \"02:00:00:00:02:{index:02x}\", vlan: 7 }}\n",
                10 + index
            );
        }
        if r.chance(20) {
            text += &format!(
                "      disks: {{ data: {{ serial: DATA{index} }}, volumes: [{{ name: scratch, selector: {{ serial: V{index} }}, filesystem: ext4, mount: /var/mnt/scratch }}] }}\n"
            );
        }
    }
    text
}

/// Parts of patches for the document that both releases have.
const BOTH: &[&str] = &[
    "machine:\n  certSANs: [a.example.org, 10.0.0.7]\n",
    "machine:\n  certSANs: []\n",
    "machine:\n  logging: {destinations: [{endpoint: \"udp://10.0.0.1:514\", format: json_lines}]}\n",
    "machine:\n  features: {diskQuotaSupport: false}\n",
    "machine:\n  features:\n    diskQuotaSupport:\n      $patch: delete\n",
    "machine:\n  files:\n    - {path: /var/etc/x, permissions: 0o644, op: create, content: \"a\\nb\\n\"}\n",
    "cluster:\n  etcd: {extraArgs: {election-timeout: \"5000\", listen-metrics-urls: http://0.0.0.0:2381}}\n",
    "cluster:\n  etcd: {extraArgs: {election-timeout: [\"1\", \"2\"]}}\n",
    "cluster:\n  etcd: {advertisedSubnets: [10.0.0.0/8]}\n",
    // Takes the certificate away too: Talos reads the pair whole.
    "cluster:\n  etcd:\n    ca:\n      key: \"\"\n",
    "debug: true\n",
    "apiVersion: v1alpha1\nkind: HostnameConfig\nauto: \"off\"\nhostname: n1\n",
    "apiVersion: v1alpha1\nkind: HostnameConfig\n$patch: delete\n",
    "apiVersion: v1alpha1\nkind: ResolverConfig\nnameservers: [{address: 1.1.1.1}]\nsearchDomains: {domains: [a.b]}\n",
    "apiVersion: v1alpha1\nkind: ResolverConfig\nnameservers: [{address: 8.8.8.8}]\nsearchDomains: {domains: [c.d], disableDefault: true}\n",
    "apiVersion: v1alpha1\nkind: LinkConfig\nname: eth0\nmtu: 9000\naddresses: [{address: 10.0.0.1/24}]\n",
    "apiVersion: v1alpha1\nkind: LinkConfig\nname: eth0\nmtu: 0\nup: false\naddresses: [{address: 10.0.0.2/24, routePriority: 5}]\n",
    "apiVersion: v1alpha1\nkind: LinkConfig\nname: eth0\naddresses:\n  $patch: delete\n",
    "apiVersion: v1alpha1\nkind: LinkConfig\nname: eth0\n$patch: delete\n",
    "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 50GiB, grow: false}\n",
    "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nencryption: {provider: luks2, keys: [{slot: 0, tpm: {}}]}\n",
    "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nencryption: {provider: luks2, keys: [{slot: 1, nodeID: {}}]}\n",
    "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: tailscale\nenvironment: [A=1]\nconfigFiles: [{content: x, mountPath: /a}]\n",
    "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: tailscale\nenvironment: [B=2]\nconfigFiles: [{content: y, mountPath: /a}, {content: z, mountPath: /b}]\n",
    "apiVersion: v1alpha1\nkind: ImageVerificationConfig\nrules: [{image: ghcr.io/*, skip: true}, {image: quay.io/*, deny: true}]\n",
    "apiVersion: v1alpha1\nkind: ImageVerificationConfig\nrules: [{image: ghcr.io/*, deny: true}, {image: x/*, skip: true}]\n",
    "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: k\nportSelector: {ports: [80, 90-100], protocol: tcp}\ningress: [{subnet: 10.0.0.0/8}]\n",
    "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: k\nportSelector: {ports: [443], protocol: tcp}\ningress: [{subnet: 192.168.0.0/16, except: 192.168.1.0/24}]\n",
    "apiVersion: v1alpha1\nkind: EnvironmentConfig\nvariables: {A: \"1\", B: \"2\"}\n",
    "apiVersion: v1alpha1\nkind: EnvironmentConfig\nvariables: {A: \"0\", C: \"\"}\n",
    "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: ghcr.io\nendpoints: [{url: \"https://a\"}]\n",
    "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: ghcr.io\nendpoints: [{url: \"https://b\", overridePath: true}]\nskipFallback: true\n",
    "apiVersion: v1alpha1\nkind: BondConfig\nname: bond0\nlinks: [eth1, eth2]\nbondMode: 802.3ad\n",
    "apiVersion: v1alpha1\nkind: BondConfig\nname: bond0\nlinks: [eth3]\nmtu: 1400\n",
    "apiVersion: v1alpha1\nkind: TimeSyncConfig\nntp: {servers: [a.ntp]}\n",
    "apiVersion: v1alpha1\nkind: TimeSyncConfig\nenabled: false\nntp: {servers: [b.ntp]}\n",
];

/// Parts for 1.13.
const OLD: &[&str] = &[
    "machine:\n  kubelet: {extraArgs: {v: \"4\", node-labels: [\"a=1\", \"b=2\"]}, extraConfig: {maxPods: 200, featureGates: {A: true}}}\n",
    "machine:\n  kubelet: {extraArgs: {v: \"2\"}, extraConfig: {maxPods: 110, imageGCHighThresholdPercent: 50, featureGates: {B: false}}}\n",
    "machine:\n  kubelet: {clusterDNS: [10.0.0.53], extraMounts: [{destination: /a, type: bind, source: /a, options: [bind, rw]}]}\n",
    "machine:\n  kubelet: {nodeIP: {validSubnets: [10.0.0.0/8]}}\n",
    "machine:\n  network:\n    interfaces:\n      - {interface: eth0, dhcp: true, mtu: 1500, vlans: [{vlanId: 5, dhcp: true}]}\n",
    "machine:\n  network:\n    interfaces:\n      - {interface: eth0, dhcp: false, addresses: [10.0.0.4/24], vlans: [{vlanId: 5, mtu: 1400}, {vlanId: 6}]}\n",
    "machine:\n  network:\n    interfaces:\n      - {deviceSelector: {hardwareAddr: \"aa:*\"}, dhcp: true, routes: [{network: 0.0.0.0/0, gateway: 10.0.0.1}]}\n",
    "machine:\n  network:\n    interfaces:\n      - {deviceSelector: {hardwareAddr: \"aa:*\"}, addresses: [10.0.0.9/24]}\n",
    "machine:\n  network:\n    interfaces:\n      - interface: eth0\n        $patch: delete\n",
    "machine:\n  sysctls: {net.core.somaxconn: 65535, vm.swappiness: \"0\"}\n",
    "machine:\n  sysctls: {net.core.somaxconn: 1024, vm.swappiness: 1}\n",
    "machine:\n  nodeLabels: {a: \"1\", b: \"\"}\n",
    "machine:\n  nodeLabels: {a: \"\", c: x}\n",
    "machine:\n  nodeLabels:\n    node.kubernetes.io/exclude-from-external-load-balancers:\n      $patch: delete\n",
    "machine:\n  install: {disk: /dev/vda, wipe: true, extensions: []}\n",
    "machine:\n  install:\n    grubUseUKICmdline:\n      $patch: delete\n",
    "machine:\n  features: {kubePrism: {port: 7446}, hostDNS: {enabled: false}}\n",
    "machine:\n  kernel: {modules: [{name: drbd, parameters: [usermode_helper=disabled]}]}\n",
    "machine:\n  kernel: {modules: [{name: zfs}]}\n",
    "machine:\n  udev: {rules: ['SUBSYSTEM==\"drm\", GROUP=\"44\"']}\n",
    "cluster:\n  network: {cni: {name: none}, podSubnets: [10.42.0.0/16], serviceSubnets: [10.43.0.0/16]}\n",
    "cluster:\n  network: {podSubnets: [10.52.0.0/16, fd00::/56]}\n",
    "cluster:\n  proxy: {disabled: true}\n",
    "cluster:\n  apiServer: {certSANs: [x.y], extraArgs: {oidc-issuer-url: \"https://a\"}, disablePodSecurityPolicy: true}\n",
    "cluster:\n  apiServer: {admissionControl: [{name: PodSecurity, configuration: {exemptions: {namespaces: [storage]}}}]}\n",
    "cluster:\n  apiServer: {admissionControl: [{name: Other, configuration: {a: 1}}]}\n",
    "cluster:\n  apiServer: {auditPolicy: {apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}}\n",
    "cluster:\n  apiServer:\n    admissionControl:\n      $patch: delete\n",
    "cluster:\n  controllerManager: {extraArgs: {bind-address: 0.0.0.0}}\n  scheduler: {extraArgs: {bind-address: 0.0.0.0}}\n",
    "cluster:\n  allowSchedulingOnControlPlanes: true\n",
    "cluster:\n  inlineManifests: [{name: a, contents: \"kind: Namespace\\n\"}]\n  extraManifests: [\"https://a/b.yaml\"]\n",
    "cluster:\n  inlineManifests: [{name: b, contents: \"kind: X\\n\"}]\n  extraManifests: [\"https://c/d.yaml\"]\n",
    "cluster:\n  discovery: {registries: {service: {disabled: true}}}\n",
    "cluster:\n  discovery:\n    $patch: delete\n",
];

/// Parts for 1.14.
const NEW: &[&str] = &[
    "apiVersion: v1alpha1\nkind: KubeletConfig\nextraArgs: {v: \"4\"}\nconfig: {maxPods: 200, featureGates: {A: true}}\n",
    "apiVersion: v1alpha1\nkind: KubeletConfig\nextraArgs: {v: [\"1\"]}\nconfig: {maxPods: 110, featureGates: {B: false}}\nclusterDNS: [10.0.0.53]\n",
    "apiVersion: v1alpha1\nkind: KubeNetworkConfig\npodSubnets: [10.42.0.0/16]\n",
    "apiVersion: v1alpha1\nkind: KubeNetworkConfig\ndnsDomain: a.b\nserviceSubnets: [10.43.0.0/16, fd00::/108]\n",
    "apiVersion: v1alpha1\nkind: KubeNodeConfig\nlabels: {a: \"1\"}\ntaints: {x: \"y:NoSchedule\"}\nnodeIP: {validSubnets: [10.0.0.0/8]}\n",
    "apiVersion: v1alpha1\nkind: KubeNodeConfig\nlabels: {a: \"2\", b: \"\"}\nannotations: {q: r}\n",
    "apiVersion: v1alpha1\nkind: KubeNodeConfig\ntaints:\n  $patch: delete\n",
    "apiVersion: v1alpha1\nkind: KubePrismConfig\n$patch: delete\n",
    "apiVersion: v1alpha1\nkind: SecurityProfileConfig\nworkloadIsolation: false\n",
    "apiVersion: v1alpha1\nkind: SysctlConfig\nparams: {a.b: \"1\", c.d: 5}\n",
    "apiVersion: v1alpha1\nkind: SysctlConfig\nparams: {a.b: 0}\n",
    "apiVersion: v1alpha1\nkind: KernelModuleConfig\nname: drbd\nparameters: [a=1]\n",
    "apiVersion: v1alpha1\nkind: KernelModuleConfig\nname: drbd\nparameters: [b=2]\n",
    "apiVersion: v1alpha1\nkind: FilesystemTrimConfig\ninterval: 24h0m0s\n",
    "apiVersion: v1alpha1\nkind: KubeAPIServerConfig\ncertExtraSANs: [x.y]\nextraArgs: {a: b}\n",
    "apiVersion: v1alpha1\nkind: KubeAPIServerConfig\ncertExtraSANs: [z.w]\nenv: {A: B}\nresources: {requests: {cpu: 1}}\n",
    "apiVersion: v1alpha1\nkind: KubeAuditPolicyConfig\nconfiguration: {apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}\n",
    "apiVersion: v1alpha1\nkind: KubeAdmissionControlConfig\nname: PodSecurity\nconfiguration: {exemptions: {namespaces: [storage]}}\n",
    "apiVersion: v1alpha1\nkind: KubeProxyConfig\nenabled: false\n",
    "apiVersion: v1alpha1\nkind: KubeFlannelCNIConfig\n$patch: delete\n",
    "apiVersion: v1alpha1\nkind: KubeFlannelCNIConfig\nbackendType: host-gw\nextraArgs: [--iface=eth0]\n",
    "apiVersion: v1alpha1\nkind: KubeCoreDNSConfig\nenabled: false\n",
    "apiVersion: v1alpha1\nkind: KubeInlineManifestConfig\nname: a\nmanifest: \"kind: Namespace\\n\"\n",
    "apiVersion: v1alpha1\nkind: UdevRulesConfig\nrules: ['A==\"b\"']\n",
    "apiVersion: v1alpha1\nkind: UdevRulesConfig\nrules: ['C==\"d\"']\n",
    "apiVersion: v1alpha1\nkind: CRIBaseRuntimeSpecConfig\noverrides: {process: {rlimits: [{hard: 1024, soft: 1024, type: RLIMIT_NOFILE}]}}\n",
];

/// Some patches to lay one over another, each a text.
pub fn patches(seed: u64, minor: u16) -> Vec<String> {
    let r = &mut Random::new(seed);
    let own = if minor == 13 { OLD } else { NEW };
    let mut out = Vec::new();
    for _ in 0..=r.below(3) {
        let mut parts: Vec<&str> = Vec::new();
        for _ in 0..=r.below(2) {
            let part = if r.chance(60) { *r.pick(own) } else { *r.pick(BOTH) };
            // One document stands once in a patch: 1.13 refuses two of them, 1.14 merges them as we do.
            let head = |text: &str| {
                text.lines()
                    .take_while(|l| ["apiVersion:", "kind:", "name:"].iter().any(|key| l.starts_with(key)))
                    .collect::<String>()
            };
            if parts.iter().all(|other| head(other) != head(part)) {
                parts.push(part);
            }
        }
        out.push(parts.join("---\n"));
    }
    out
}

/// A list of operations for a config of one document.
pub fn operations(seed: u64) -> String {
    let r = &mut Random::new(seed);
    let all = [
        r#"{"op":"add","path":"/machine/certSANs/-","value":"a.b"}"#,
        r#"{"op":"add","path":"/machine/certSANs","value":["c.d","e.f"]}"#,
        r#"{"op":"add","path":"/machine/certSANs/0","value":"g.h"}"#,
        r#"{"op":"remove","path":"/machine/certSANs/0"}"#,
        r#"{"op":"remove","path":"/machine/certSANs/-1"}"#,
        r#"{"op":"replace","path":"/machine/kubelet/image","value":"ghcr.io/x/kubelet:v1.36.1"}"#,
        r#"{"op":"replace","path":"/machine/features/kubePrism/port","value":7777}"#,
        r#"{"op":"add","path":"/machine/nodeLabels","value":{"a/b":"c"}}"#,
        r#"{"op":"add","path":"/machine/nodeLabels/x~1y","value":"z"}"#,
        r#"{"op":"add","path":"/machine/sysctls","value":{"net.core.somaxconn":"65535"}}"#,
        r#"{"op":"remove","path":"/cluster/discovery"}"#,
        r#"{"op":"replace","path":"/cluster/discovery/enabled","value":false}"#,
        r#"{"op":"copy","from":"/cluster/network/podSubnets","path":"/cluster/network/serviceSubnets"}"#,
        r#"{"op":"move","from":"/machine/nodeLabels","path":"/machine/nodeAnnotations"}"#,
        r#"{"op":"test","path":"/machine/type","value":"controlplane"}"#,
        r#"{"op":"test","path":"/machine/type","value":"worker"}"#,
        r#"{"op":"test","path":"/machine/features/kubePrism","value":{"port":7445,"enabled":true}}"#,
        r#"{"op":"add","path":"/cluster/nope/deep","value":1}"#,
        r#"{"op":"replace","path":"/cluster/proxy","value":{"disabled":true}}"#,
        r#"{"op":"add","path":"/cluster/proxy/disabled","value":true}"#,
    ];
    let mut list = Vec::new();
    for _ in 0..=r.below(5) {
        list.push(*r.pick(&all));
    }
    format!("[{}]", list.join(","))
}
