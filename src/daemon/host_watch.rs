//! What this host's kernel tells by itself: changes of the network, connections that a server closed, and changes of the firewall.
//! Each only makes somebody look again; none decides anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};

use super::network::Network;
use crate::sys::news::{NetworkListener, NetworkNews, RulesListener, RulesNews, VeilListener};
use crate::sys::nft;

/// A change seldom comes alone: a cable that is plugged in brings a link, addresses and routes.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);

/// Another firewall replaces its rules in several steps.
const RULES_SETTLE_WITHIN: Duration = Duration::from_millis(200);

/// Pause before a listener that failed is opened again.
const RETRY: Duration = Duration::from_secs(10);

/// What changed, as counts that grow.
#[derive(Clone, Debug)]
pub struct HostChanges {
    /// Links, addresses and routes.
    pub network: watch::Receiver<u64>,
    /// By address: what was heard of it without asking, a FIN, a RST, or that it is no longer a neighbour.
    pub hints: watch::Receiver<BTreeMap<IpAddr, u64>>,
}

impl HostChanges {
    /// How often something was heard of an address.
    pub fn hints_of(&self, address: IpAddr) -> u64 {
        self.hints.borrow().get(&address).copied().unwrap_or(0)
    }
}

/// Starts listening; ends with the runtime.
pub fn spawn(network: Arc<Network>) -> HostChanges {
    let (changed, changes) = watch::channel(0);
    let (hint, hints) = watch::channel(BTreeMap::new());
    tokio::spawn(listen_to_the_network(changed, hint.clone()));
    tokio::spawn(listen_to_the_veil(hint));
    tokio::spawn(keep_rules(network));
    HostChanges { network: changes, hints }
}

fn heard(hints: &watch::Sender<BTreeMap<IpAddr, u64>>, address: IpAddr) {
    debug!(%address, "heard of a server without asking it");
    hints.send_modify(|hints| *hints.entry(address).or_default() += 1);
}

async fn listen_to_the_network(changed: watch::Sender<u64>, hints: watch::Sender<BTreeMap<IpAddr, u64>>) {
    loop {
        let error = match NetworkListener::open() {
            Ok(listener) => loop {
                match listener.next().await {
                    Ok(news) => {
                        for address in news.iter().filter_map(lost) {
                            heard(&hints, address);
                        }
                        if news.contains(&NetworkNews::Changed) {
                            tokio::time::sleep(SETTLES_WITHIN).await;
                            changed.send_modify(|changes| *changes += 1);
                        }
                    }
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        warn!(%error, "cannot listen to changes of the network; probes go on");
        tokio::time::sleep(RETRY).await;
    }
}

fn lost(news: &NetworkNews) -> Option<IpAddr> {
    match news {
        NetworkNews::NeighbourLost(address) => Some(*address),
        NetworkNews::Changed => None,
    }
}

async fn listen_to_the_veil(hints: watch::Sender<BTreeMap<IpAddr, u64>>) {
    let mut warned = false;
    loop {
        let error = match VeilListener::open().await {
            Ok(listener) => loop {
                match listener.next().await {
                    Ok(Some(senders)) => senders.into_iter().for_each(|address| heard(&hints, address)),
                    Ok(None) => hints.send_modify(|hints| hints.values_mut().for_each(|count| *count += 1)),
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        if !std::mem::replace(&mut warned, true) {
            warn!(%error, "cannot listen to what the veil swallows: a server that stops is seen by the next probe");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whoever loads a ruleset of his own may flush everybody's: `nftables.service` of Debian does. Without a veil the kernel hears what
/// the server says, so it is laid at once; what comes after it is looked at when it has settled. What could not be laid is tried again.
async fn keep_rules(network: Arc<Network>) {
    loop {
        let error = match RulesListener::open(nft::TABLE) {
            Ok(mut listener) => loop {
                match tokio::time::timeout(RETRY, listener.next()).await {
                    Ok(Err(error)) => break error,
                    Ok(Ok(news)) => {
                        if news == RulesNews::Removed {
                            network.lay_again().await;
                        }
                        tokio::time::sleep(RULES_SETTLE_WITHIN).await;
                    }
                    Err(_) if network.is_applied().await => continue,
                    Err(_) => {}
                }
                network.keep_rules().await;
            },
            Err(error) => error,
        };
        warn!(%error, "cannot listen to changes of nftables: a veil that somebody flushes is missing until it changes");
        tokio::time::sleep(RETRY).await;
    }
}
