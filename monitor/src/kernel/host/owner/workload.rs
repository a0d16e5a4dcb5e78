//! The workload of a pod, derived from the pod's name.
//!
//! Kubernetes composes the name of a pod from that of its controller. Without its API server, the name
//! is all there is, so a pod that somebody named in the same way is cut as well.
//!
//! | controller | name of the pod | workload |
//! |---|---|---|
//! | Deployment, ReplicaSet | `chat-6d4cf56db6-x7k2p` | `chat` |
//! | DaemonSet, Job | `chat-x7k2p` | `chat` |
//! | CronJob | `chat-28934560-x7k2p` | `chat` |
//! | StatefulSet | `chat-0` | `chat` |
//! | none | `chat` | `chat` |

/// The alphabet of generated names (`SafeEncodeString` in k8s.io/apimachinery): no vowels, and no digits
/// that look like one.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The length of a pod's random suffix.
const SUFFIX: usize = 5;

/// The name of the workload that a pod with this name belongs to.
pub(super) fn workload(pod_name: &str) -> &str {
    let Some((controller, last)) = split_last(pod_name) else {
        return pod_name;
    };
    if last.len() == SUFFIX && is_generated(last) {
        return match split_last(controller) {
            Some((name, hash)) if is_template_hash(hash) || is_schedule(hash) => name,
            _ => controller,
        };
    }
    match is_number(last) {
        true => controller,
        false => pod_name,
    }
}

/// The parts around the last dash, neither of them empty.
fn split_last(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('-')
        .filter(|(first, last)| !first.is_empty() && !last.is_empty())
}

/// The hash of a ReplicaSet's template: a 32-bit number, each decimal digit encoded.
fn is_template_hash(part: &str) -> bool {
    (8..=10).contains(&part.len()) && is_generated(part)
}

/// The scheduled time of a CronJob's Job, in minutes since 1970.
fn is_schedule(part: &str) -> bool {
    part.len() == 8 && is_number(part)
}

fn is_generated(part: &str) -> bool {
    part.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn is_number(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffixes_of_each_controller_are_removed_and_no_others() {
        for (pod, expected) in [
            // Deployments, with a hash of 10, 9 and 8 characters.
            ("chat-6d4cf56db6-x7k2p", "chat"),
            ("chat-v2-6d4cf56db-x7k2p", "chat-v2"),
            ("chat-6d4cf56d-x7k2p", "chat"),
            // A hash is not shorter or longer, and has no vowels.
            ("chat-6d4cf56-x7k2p", "chat-6d4cf56"),
            ("chat-6d4cf56db64-x7k2p", "chat-6d4cf56db64"),
            ("chat-gateways-x7k2p", "chat-gateways"),
            // DaemonSets and Jobs.
            ("node-exporter-x7k2p", "node-exporter"),
            ("migrate-2-x7k2p", "migrate-2"),
            // CronJobs.
            ("backup-28934560-x7k2p", "backup"),
            ("backup-289345601-x7k2p", "backup-289345601"),
            // StatefulSets.
            ("chat-0", "chat"),
            ("chat-12", "chat"),
            ("chat-123456", "chat"),
            ("chat-6d4cf56db6-0", "chat-6d4cf56db6"),
            // Pods without a controller, static ones too.
            ("chat", "chat"),
            ("chat-proxy", "chat-proxy"),
            ("etcd-node-a", "etcd-node-a"),
            ("chat-x7k2", "chat-x7k2"),
            ("chat-x7k2p9", "chat-x7k2p9"),
            ("chat-X7K2P", "chat-X7K2P"),
            // Nothing is cut to an empty name.
            ("-x7k2p", "-x7k2p"),
            ("-6d4cf56db6-x7k2p", "-6d4cf56db6"),
            ("6d4cf56db6-x7k2p", "6d4cf56db6"),
            ("0", "0"),
            ("-", "-"),
            ("chat-", "chat-"),
            ("", ""),
            ("ä-x7k2p", "ä"),
        ] {
            assert_eq!(workload(pod), expected, "{pod}");
        }
    }

    #[test]
    fn a_pod_that_is_named_like_a_generated_one_is_cut_too() {
        assert_eq!(workload("gateway-https"), "gateway");
    }
}
