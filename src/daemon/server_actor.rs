//! The loop of one server: probe, tell the detector, publish what it believes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::network::Network;
use super::sleep::Sleep;
use crate::config::settings::{ProbeSettings, ServerSettings};
use crate::share::detector::{Detector, DetectorSpec, Flapping, Trust, Verdict};
use crate::sys::worker::{self, Answer, Request};
use crate::sys::{clock, probe};

/// How long a name may take to resolve. A resolver with three dead servers gives up after 30 s; until then the last address serves.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// How often the name of a server that does not answer is looked up again: it may have got another address.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(15);

/// What is known of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerView {
    /// Its address, once known.
    pub address: Option<IpAddr>,
    /// What the detector believes.
    pub trust: Trust,
    /// How long the last answer took.
    pub latency: Option<Duration>,
    /// Whether it comes and goes.
    pub flapping: Option<Flapping>,
}

/// A server that is being probed, until this is dropped.
#[derive(Debug)]
pub struct Probed {
    /// What is known of it.
    pub view: watch::Receiver<ServerView>,
    /// How it is probed. Its host never changes: another host is another server.
    pub settings: watch::Sender<ServerSettings>,
}

/// Starts the loop; it ends with what is returned, or with the runtime.
pub fn spawn(settings: ServerSettings, network: Arc<Network>, sleep: Sleep) -> Probed {
    let address = settings.host.parse().ok();
    let (view, receiver) = watch::channel(ServerView { address, trust: Trust::Unknown, latency: None, flapping: None });
    let span = info_span!("server", name = %settings.id);
    let (sender, settings) = watch::channel(settings);
    tokio::spawn(run(settings, network, sleep, view).instrument(span));
    Probed { view: receiver, settings: sender }
}

fn detector_spec(probing: &ProbeSettings) -> DetectorSpec {
    DetectorSpec { interval: probing.interval, dead_after: probing.dead_after, alive_after: probing.alive_after }
}

async fn run(
    mut configured: watch::Receiver<ServerSettings>,
    network: Arc<Network>,
    mut sleep: Sleep,
    view: watch::Sender<ServerView>,
) {
    let mut settings = configured.borrow_and_update().clone();
    let mut detector = Detector::new(detector_spec(&settings.probe), clock::now());
    let mut resolve_at = clock::now();
    loop {
        tokio::select! {
            () = clock::sleep_until(detector.next_probe_at()) => {}
            changed = configured.changed() => {
                if changed.is_err() {
                    return;
                }
                settings = configured.borrow_and_update().clone();
                detector.reconfigure(detector_spec(&settings.probe));
            }
            () = sleep.woken() => {}
        }
        if sleep.asleep().is_some() {
            // an answer from before the sleep says nothing of now
            detector.handle_change_of_network(clock::now());
        }
        if clock::now() < detector.next_probe_at() {
            continue;
        }
        let started = clock::now();
        let believed = view.borrow().address;
        let is_literal = settings.host.parse::<IpAddr>().is_ok();
        let doubted = believed.is_none() || matches!(detector.trust(), Trust::Dead { .. });
        if !is_literal && doubted && started >= resolve_at {
            resolve_at = started + RESOLVE_INTERVAL;
            if let Some(address) = resolve(&settings.host).await.filter(|address| believed != Some(*address)) {
                info!(%address, host = settings.host, "resolved");
                network.veil(&settings.id.to_string(), address).await;
                view.send_modify(|view| view.address = Some(address));
            }
        }
        let known = view.borrow().address;
        let verdict = match known {
            Some(address) => probe::probe(address, settings.probe.timeout).await,
            None => Verdict::Unresolved,
        };
        let now = clock::now();
        let latency = (verdict == Verdict::Alive).then(|| now.since(started));
        debug!(%verdict, ?latency, "probe");
        let before = detector.trust();
        if let Some(trust) = detector.handle_verdict(started, now, verdict)
            && std::mem::discriminant(&before) != std::mem::discriminant(&trust)
        {
            info!(?trust, "trust changed");
        }
        let (trust, flapping) = (detector.trust(), detector.flapping(now));
        view.send_if_modified(|view| {
            view.latency = latency.or(view.latency);
            if view.flapping.is_none()
                && let Some(Flapping { outages, must_answer_for }) = flapping
            {
                warn!(outages, ?must_answer_for, "the server comes and goes: it has to answer for longer");
            }
            view.flapping = flapping;
            let changed = view.trust != trust;
            view.trust = trust;
            changed
        });
    }
}

/// The first address, IPv4 before IPv6: a NAS announces IPv6 addresses sooner than its SMB service listens on them.
async fn resolve(host: &str) -> Option<IpAddr> {
    let child = worker::start(&Request::Resolve { host: host.to_owned() }).await.ok()?;
    match worker::reply(child, tokio::time::sleep(RESOLVE_WITHIN)).await {
        Ok(Answer::Addresses(addresses)) => first(&addresses),
        Ok(_) => None,
        Err(error) => {
            warn!(%error, host, "name not resolved");
            None
        }
    }
}

fn first(addresses: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first()).copied()
}
