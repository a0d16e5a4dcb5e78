//! Rules that translate destinations, whichever program wrote them.

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use super::{PortForward, RuleSource};
use crate::config::listeners::PortRange;

/// The rules of one namespace, by the key of their chain.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    pub(super) chains: HashMap<String, Vec<Rule>>,
    /// The chains with which the kernel begins.
    pub(super) bases: Vec<String>,
}

/// A rule that may apply to TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// The destination ports that it matches; `None` for all.
    pub(super) ports: Option<Vec<RangeInclusive<u16>>>,
    /// The destination that it matches; `None` for any.
    pub(super) address: Option<IpNet>,
    pub(super) target: Target,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing that matters here.
    #[default]
    Other,
    Chain(String),
    /// The new destination; `None` keeps the port, and an address of this host.
    To {
        address: Option<IpAddr>,
        ports: Option<RangeInclusive<u16>>,
    },
}

/// What the rules on the way to a chain have matched.
#[derive(Clone)]
struct Matched {
    ports: Vec<RangeInclusive<u16>>,
    address: Option<IpNet>,
}

/// Rules that are followed at most, each as often as chains lead to it.
const MAX_STEPS: usize = 200_000;
/// The kernel allows fewer jumps inside one another (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

impl Ruleset {
    /// What the rules forward, each once.
    pub(super) fn forwards(&self, by: RuleSource) -> Vec<PortForward> {
        let all = Matched {
            ports: vec![1..=u16::MAX],
            address: None,
        };
        let (mut found, mut steps) = (Vec::new(), 0);
        for base in &self.bases {
            self.follow(
                base,
                &all,
                0,
                &mut steps,
                &mut |forward| {
                    if !found.contains(&forward) {
                        found.push(forward);
                    }
                },
                by,
            );
        }
        found
    }

    fn follow(
        &self,
        chain: &str,
        before: &Matched,
        depth: usize,
        steps: &mut usize,
        emit: &mut impl FnMut(PortForward),
        by: RuleSource,
    ) {
        let rules = self.chains.get(chain).map_or(&[][..], Vec::as_slice);
        for rule in rules {
            *steps += 1;
            if *steps > MAX_STEPS {
                return;
            }
            let matched = before.narrowed(rule);
            match &rule.target {
                Target::Other => {}
                Target::Chain(next) if depth < MAX_DEPTH && !matched.ports.is_empty() => {
                    self.follow(next, &matched, depth + 1, steps, emit, by);
                }
                Target::Chain(_) => {}
                Target::To { address, ports } => {
                    for from in matched.ports {
                        emit(PortForward {
                            ports: PortRange(from),
                            address: matched.address,
                            to_address: *address,
                            to_ports: ports.clone().map(PortRange),
                            by,
                        });
                    }
                }
            }
        }
    }
}

impl Matched {
    /// What also matches `rule`.
    fn narrowed(&self, rule: &Rule) -> Self {
        let ports = match &rule.ports {
            None => self.ports.clone(),
            Some(ports) => self
                .ports
                .iter()
                .flat_map(|a| ports.iter().filter_map(|b| common(a, b)))
                .collect(),
        };
        Self {
            ports,
            address: rule.address.or(self.address),
        }
    }
}

fn common(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (first, last) = (*a.start().max(b.start()), *a.end().min(b.end()));
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Target {
        Target::To {
            address: None,
            ports: Some(port..=port),
        }
    }

    fn rule(ports: RangeInclusive<u16>, target: Target) -> Rule {
        Rule {
            ports: Some(vec![ports]),
            address: None,
            target,
        }
    }

    fn ruleset(chains: &[(&str, Vec<Rule>)]) -> Ruleset {
        Ruleset {
            chains: chains
                .iter()
                .map(|(name, rules)| ((*name).to_owned(), rules.clone()))
                .collect(),
            bases: vec!["base".to_owned()],
        }
    }

    #[test]
    fn a_chain_applies_to_what_the_rules_before_it_have_matched() {
        let jump = Target::Chain("next".to_owned());
        let rules = ruleset(&[
            ("base", vec![rule(80..=90, jump)]),
            ("next", vec![rule(1..=85, to(1)), rule(100..=101, to(2))]),
            ("unused", vec![rule(1..=85, to(3))]),
        ]);
        let found = rules.forwards(RuleSource::Nftables);
        let shown: Vec<_> = found.iter().map(|it| it.ports.to_string()).collect();
        assert_eq!(shown, ["80-85"]);
    }

    #[test]
    fn chains_that_lead_to_each_other_end_within_the_bounds() {
        let loops = |name: &str| rule(1..=u16::MAX, Target::Chain(name.to_owned()));
        let rules = ruleset(&[
            ("base", vec![loops("base"); 50]),
            ("next", vec![rule(80..=80, to(1))]),
        ]);
        assert_eq!(rules.forwards(RuleSource::Nftables), []);
    }
}
