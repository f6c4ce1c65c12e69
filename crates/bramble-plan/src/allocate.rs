//! What is given once and never given again: node numbers, pod ranges, incarnations.

use bramble_api::lock::{Allocated, AllocatedNode};
use ipnet::Ipv4Net;

/// Bits of a node's own pod range: 254 pods, Kubernetes' usual share.
const POD_RANGE_PREFIX: u8 = 24;

/// An allocation that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// Every range of the pod network has been given, also to nodes that are gone.
    #[error(
        "the pod network {pods} has no range left for {node}: {given} were given since the cluster was founded"
    )]
    Exhausted {
        /// The pod network.
        pods: Ipv4Net,
        /// Who wanted one.
        node: String,
        /// How many were given.
        given: u32,
    },
}

/// Gives every node of `names` (in the file's order) that has none a number and a pod range.
///
/// Numbers only grow: neither the order in the file nor a deleted node changes what another node has, and a name
/// that comes back gets what it had.
pub fn allocate<'a>(
    allocated: &Allocated,
    names: impl IntoIterator<Item = &'a str>,
    pods: Ipv4Net,
) -> Result<Allocated, AllocateError> {
    let mut result = allocated.clone();
    // A lock written by hand or merged badly must still not give a number twice.
    let highest = result.nodes.values().map(|n| n.number + 1).max().unwrap_or(0);
    result.next_number = result.next_number.max(highest).max(1);
    for name in names {
        if result.nodes.contains_key(name) {
            continue;
        }
        let number = result.next_number;
        let pod_range = pod_range(pods, number).ok_or_else(|| AllocateError::Exhausted {
            pods,
            node: name.to_string(),
            given: number - 1,
        })?;
        result
            .nodes
            .insert(name.to_string(), AllocatedNode { number, pod_range, incarnation: 1, written: false });
        result.next_number = number + 1;
    }
    Ok(result)
}

/// The `number`-th range of the pod network; number 0 is never given, so that 10.42.0.0/24 stays free for probes
/// and bridges of people's own.
fn pod_range(pods: Ipv4Net, number: u32) -> Option<Ipv4Net> {
    let share = POD_RANGE_PREFIX.max(pods.prefix_len());
    pods.subnets(share).ok()?.nth(number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "10.42.0.0/16";

    fn numbers(allocated: &Allocated) -> Vec<(&str, u32, String)> {
        allocated.nodes.iter().map(|(n, a)| (n.as_str(), a.number, a.pod_range.to_string())).collect()
    }

    #[test]
    fn deleting_and_reordering_renumbers_nobody() {
        let pods = PODS.parse().unwrap();
        let first = allocate(&Allocated::default(), ["a", "b", "c"], pods).unwrap();
        assert_eq!(first.nodes["a"].pod_range.to_string(), "10.42.1.0/24");
        let second = allocate(&first, ["c", "d", "a"], pods).unwrap();
        assert_eq!(
            numbers(&second),
            [
                ("a", 1, "10.42.1.0/24".into()),
                ("b", 2, "10.42.2.0/24".into()),
                ("c", 3, "10.42.3.0/24".into()),
                ("d", 4, "10.42.4.0/24".into())
            ]
        );
        // b comes back and is who it was.
        assert_eq!(allocate(&second, ["b"], pods).unwrap(), second);
    }

    #[test]
    fn a_lost_counter_gives_no_number_twice() {
        let pods = PODS.parse().unwrap();
        let mut merged = allocate(&Allocated::default(), ["a", "b"], pods).unwrap();
        merged.next_number = 0;
        assert_eq!(allocate(&merged, ["x"], pods).unwrap().nodes["x"].number, 3);
    }

    #[test]
    fn a_full_pod_network_is_refused() {
        let pods = "10.42.0.0/23".parse().unwrap();
        let full = allocate(&Allocated::default(), ["a"], pods).unwrap();
        assert!(matches!(allocate(&full, ["b"], pods), Err(AllocateError::Exhausted { given: 1, .. })));
    }
}
