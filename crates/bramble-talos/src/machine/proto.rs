//! The part of Talos' wire format that is spoken here, by hand.
//!
//! Names and numbers are those of `api/machine/*.proto`, `api/common/common.proto` and `api/storage/storage.proto` of
//! Talos 1.13 and 1.14, and of COSI's `v1alpha1/*.proto`. Only what is read or written stands here: what a newer
//! Talos adds is skipped by its number. That they are right is shown by talking to a server made of Talos' own stubs
//! (`tests/machine.rs`).

/// Every reply of `MachineService` is a list with one entry for each machine asked; here that is one. An entry is left
/// as its bytes, so that this serves them all.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Replies {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub messages: Vec<Vec<u8>>,
}

/// `google.protobuf.Empty`, and every other message without a field that matters.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Nothing {}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Duration {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Version {
    #[prost(message, optional, tag = "2")]
    pub version: Option<VersionInfo>,
    #[prost(message, optional, tag = "3")]
    pub platform: Option<Platform>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionInfo {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(string, tag = "6")]
    pub arch: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub mode: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ApplyConfigurationRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    #[prost(int32, tag = "4")]
    pub mode: i32,
    #[prost(bool, tag = "5")]
    pub dry_run: bool,
    #[prost(message, optional, tag = "6")]
    pub try_mode_timeout: Option<Duration>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ApplyConfiguration {
    #[prost(string, repeated, tag = "2")]
    pub warnings: Vec<String>,
    #[prost(int32, tag = "3")]
    pub mode: i32,
    #[prost(string, tag = "4")]
    pub mode_details: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct BootstrapRequest {
    #[prost(bool, tag = "1")]
    pub recover_etcd: bool,
    #[prost(bool, tag = "2")]
    pub recover_skip_hash_check: bool,
}

/// `common.Data`: a piece of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Data {
    #[prost(bytes = "vec", tag = "2")]
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceList {
    #[prost(message, repeated, tag = "2")]
    pub services: Vec<ServiceInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceInfo {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub state: String,
    #[prost(message, optional, tag = "4")]
    pub health: Option<ServiceHealth>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceHealth {
    #[prost(bool, tag = "1")]
    pub unknown: bool,
    #[prost(bool, tag = "2")]
    pub healthy: bool,
    #[prost(string, tag = "3")]
    pub last_message: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct EtcdMemberListRequest {
    #[prost(bool, tag = "1")]
    pub query_local: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EtcdMembers {
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<EtcdMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EtcdMember {
    #[prost(uint64, tag = "2")]
    pub id: u64,
    #[prost(string, tag = "3")]
    pub hostname: String,
    #[prost(string, repeated, tag = "4")]
    pub peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub client_urls: Vec<String>,
    #[prost(bool, tag = "6")]
    pub is_learner: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EtcdStatus {
    #[prost(message, optional, tag = "2")]
    pub member_status: Option<EtcdMemberStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EtcdMemberStatus {
    #[prost(string, tag = "1")]
    pub protocol_version: String,
    #[prost(int64, tag = "2")]
    pub db_size: i64,
    #[prost(int64, tag = "3")]
    pub db_size_in_use: i64,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    #[prost(uint64, tag = "5")]
    pub raft_index: u64,
    #[prost(uint64, tag = "6")]
    pub raft_term: u64,
    #[prost(uint64, tag = "7")]
    pub raft_applied_index: u64,
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    #[prost(bool, tag = "9")]
    pub is_learner: bool,
    #[prost(uint64, tag = "10")]
    pub member_id: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct EtcdRemoveMemberByIdRequest {
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
}

/// `machine.ContainerdInstance`: which containerd, and which of its namespaces.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Containerd {
    #[prost(int32, tag = "1")]
    pub driver: i32,
    #[prost(int32, tag = "2")]
    pub namespace: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullRequest {
    #[prost(message, optional, tag = "1")]
    pub containerd: Option<Containerd>,
    #[prost(string, tag = "3")]
    pub image_ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullResponse {
    /// The name under which it lies; empty while it is on its way.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub pull_progress: Option<PullProgress>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullProgress {
    #[prost(string, tag = "1")]
    pub layer_id: String,
    #[prost(message, optional, tag = "2")]
    pub progress: Option<LayerProgress>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LayerProgress {
    #[prost(int64, tag = "3")]
    pub offset: i64,
    #[prost(int64, tag = "4")]
    pub total: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LifecycleUpgradeRequest {
    #[prost(message, optional, tag = "1")]
    pub containerd: Option<Containerd>,
    #[prost(message, optional, tag = "2")]
    pub source: Option<InstallSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InstallSource {
    #[prost(string, tag = "1")]
    pub image_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LifecycleUpgradeResponse {
    #[prost(message, optional, tag = "1")]
    pub progress: Option<InstallProgress>,
}

/// A line of the installer, or how it ended. The two are a `oneof`: that it ended well is zero, and said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InstallProgress {
    #[prost(string, optional, tag = "1")]
    pub message: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub exit_code: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RebootRequest {
    #[prost(int32, tag = "1")]
    pub mode: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ShutdownRequest {
    #[prost(bool, tag = "1")]
    pub force: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResetRequest {
    #[prost(bool, tag = "1")]
    pub graceful: bool,
    #[prost(bool, tag = "2")]
    pub reboot: bool,
    #[prost(message, repeated, tag = "3")]
    pub system_partitions_to_wipe: Vec<PartitionToWipe>,
    #[prost(string, repeated, tag = "4")]
    pub user_disks_to_wipe: Vec<String>,
    #[prost(int32, tag = "5")]
    pub mode: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PartitionToWipe {
    #[prost(string, tag = "1")]
    pub label: String,
    #[prost(bool, tag = "2")]
    pub wipe: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    #[prost(string, tag = "1")]
    pub path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LogsRequest {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(int32, tag = "3")]
    pub driver: i32,
    #[prost(bool, tag = "4")]
    pub follow: bool,
    #[prost(int32, tag = "5")]
    pub tail_lines: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DmesgRequest {
    #[prost(bool, tag = "1")]
    pub follow: bool,
    #[prost(bool, tag = "2")]
    pub tail: bool,
}

/// `cosi.resource.GetRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetRequest {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub id: String,
}

/// `cosi.resource.ListRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListRequest {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub kind: String,
}

/// The reply to both.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceResponse {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    #[prost(message, optional, tag = "2")]
    pub spec: Option<Spec>,
}

/// The `proto_spec` of a machine config.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MachineConfigSpec {
    #[prost(bytes = "vec", tag = "1")]
    pub yaml: Vec<u8>,
}

/// Talos fills both; the first is read for configs alone, which it holds as their own bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Spec {
    #[prost(bytes = "vec", tag = "1")]
    pub proto_spec: Vec<u8>,
    #[prost(string, tag = "2")]
    pub yaml_spec: String,
}
