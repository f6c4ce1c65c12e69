//! C.
use crate::decode::Context;
use crate::places::Places;
use crate::types::Cluster;
pub(crate) fn check(_cluster: &Cluster, _places: &Places, _cx: &mut Context) {}
