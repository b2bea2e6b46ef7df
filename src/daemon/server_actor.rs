//! The loop of one server: probe, look at this host's way to it, tell the detector, publish what it believes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::host_watch::HostChanges;
use super::network::Network;
use super::share_actor::wait_until;
use super::sleep::{News, Sleep};
use crate::config::network::HomeNetwork;
use crate::config::settings::{ProbeSettings, ServerSettings};
use crate::share::BootInstant;
use crate::share::detector::addresses::Addresses;
use crate::share::detector::network;
use crate::share::detector::{
    Detector, DetectorSpec, Flapping, Identity, Latency, LocalTrouble, Probed, Trust, Verdict, Whose,
};
use crate::sys::clock;
use crate::sys::probe::{self, Unanswered};
use crate::sys::state_file::{ServerMemory, StateFiles};
use crate::sys::worker::{self, Answer, Request};

/// How long a name may take to resolve. A resolver with three dead servers gives up after 30 s; until then the last address serves.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// How often the name of a server that does not answer is looked up again: it may have got another address.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long this host may take to say how it would reach the server; it asks nobody else.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// When it is looked again, if it could not be said on which network this host is.
const LOOK_RETRY: Duration = Duration::from_secs(5);

/// What is known of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerView {
    /// Its address, once known.
    pub address: Option<IpAddr>,
    /// What the detector believes.
    pub trust: Trust,
    /// How its answers came lately.
    pub latency: Option<Latency>,
    /// Whether it comes and goes.
    pub flapping: Option<Flapping>,
    /// What is wrong with this host's way to it, in words.
    pub local_trouble: Option<String>,
    /// Who answers in its place.
    pub stranger: Option<Identity>,
    /// How often it has closed connections to this host, and answered afterwards.
    pub closed: u64,
}

/// A server that is being probed, until this is dropped.
#[derive(Debug)]
pub struct ProbedServer {
    /// What is known of it.
    pub view: watch::Receiver<ServerView>,
    /// How it is probed. Its host never changes: another host is another server.
    pub settings: watch::Sender<ServerSettings>,
    /// An operator trusts whoever answers now.
    pub trust_stranger: mpsc::Sender<()>,
}

/// What a server's loop is connected to.
#[derive(Clone, Debug)]
pub struct ServerSurroundings {
    /// Veil and fence.
    pub network: Arc<Network>,
    /// Changes of this host's network, and what the veil heard.
    pub changes: HostChanges,
    /// Where it is written down who a server is and where.
    pub files: StateFiles,
}

/// Starts the loop; it ends with what is returned, or with the runtime.
pub fn spawn(settings: ServerSettings, around: ServerSurroundings, sleep: Sleep) -> ProbedServer {
    let memory = remembered(&settings, &around.files);
    let view = ServerView {
        address: memory.address,
        trust: Trust::Unknown,
        latency: None,
        flapping: None,
        local_trouble: None,
        stranger: None,
        closed: 0,
    };
    let (view, receiver) = watch::channel(view);
    let span = info_span!("server", name = %settings.id);
    let (sender, configured) = watch::channel(settings.clone());
    let (trust_stranger, trusted) = mpsc::channel(1);
    let (outcome, outcomes) = mpsc::channel(4);
    let (remember, to_remember) = watch::channel(memory.clone());
    tokio::spawn(
        write_down(settings.id.to_string(), settings.host.clone(), around.files, to_remember).instrument(span.clone()),
    );
    let actor = ServerActor {
        detector: Detector::new(detector_spec(&settings), memory.identity, clock::now()),
        looked_up: settings.host.parse::<IpAddr>().is_ok(),
        settings,
        network: around.network,
        changes: around.changes,
        remember,
        sleep,
        view,
        outcome,
        probing: false,
        unanswered: BTreeMap::new(),
        addresses: Addresses::default(),
        asking_other: false,
        looking: false,
        look_again: true,
        look_again_at: None,
        looks_count_from: clock::now(),
        resolving: false,
        resolve_at: clock::now(),
        hints: 0,
        closed_at: None,
    };
    tokio::spawn(actor.run(configured, trusted, outcomes).instrument(span));
    ProbedServer { view: receiver, settings: sender, trust_stranger }
}

/// What is known of a server before it is asked: an address that is configured, or where its name led to last.
pub fn remembered(settings: &ServerSettings, files: &StateFiles) -> ServerMemory {
    let memory = files.read_server(&settings.id.to_string(), &settings.host).unwrap_or_else(|error| {
        warn!(server = %settings.id, %error, "cannot read who the server was");
        ServerMemory::default()
    });
    ServerMemory { address: settings.host.parse().ok().or(memory.address), ..memory }
}

/// Writes down what is to be remembered, one state after the other; a slow disk skips some, never the last.
async fn write_down(server: String, host: String, files: StateFiles, mut memory: watch::Receiver<ServerMemory>) {
    while memory.changed().await.is_ok() {
        let latest = memory.borrow_and_update().clone();
        let (files, server, host) = (files.clone(), server.clone(), host.clone());
        let written = tokio::task::spawn_blocking(move || files.write_server(&server, &host, &latest)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
            warn!(%error, "cannot write down who the server is: after a restart any other will be believed");
        }
    }
}

fn detector_spec(settings: &ServerSettings) -> DetectorSpec {
    let ProbeSettings { interval, timeout, timeout_max, dead_after, alive_after } = settings.probe;
    let (identity, bound) = (settings.identity, !settings.only_on.is_empty());
    DetectorSpec { interval, timeout, timeout_max, dead_after, alive_after, identity, bound }
}

/// What is wrong with this host's way to a server, and in words; `None` if nothing is.
type Trouble = Option<(LocalTrouble, String)>;

/// What something that takes a while found.
enum Outcome {
    Probed {
        address: Option<IpAddr>,
        started: BootInstant,
        probed: Probed,
        unanswered: Option<Unanswered>,
    },
    /// Another address of its name.
    AskedOther {
        address: IpAddr,
        probed: Probed,
        unanswered: Option<Unanswered>,
    },
    Looked {
        address: Option<IpAddr>,
        started: BootInstant,
        trouble: Result<Trouble, worker::Failed>,
    },
    Resolved(Vec<IpAddr>),
}

struct ServerActor {
    settings: ServerSettings,
    network: Arc<Network>,
    changes: HostChanges,
    remember: watch::Sender<ServerMemory>,
    sleep: Sleep,
    detector: Detector,
    view: watch::Sender<ServerView>,
    outcome: mpsc::Sender<Outcome>,
    probing: bool,
    /// Where it may still answer, while it is dead.
    unanswered: BTreeMap<IpAddr, Unanswered>,
    /// What its name leads to; the view says which of them is used.
    addresses: Addresses,
    asking_other: bool,
    looking: bool,
    /// The way to the server may have changed since it was looked at.
    look_again: bool,
    /// When it is looked again without news.
    look_again_at: Option<BootInstant>,
    /// What was seen of the network before says nothing of now.
    looks_count_from: BootInstant,
    resolving: bool,
    /// The address is not only what was remembered.
    looked_up: bool,
    resolve_at: BootInstant,
    /// Hints of the present address that have been heeded.
    hints: u64,
    /// When it closed a connection, until an answer says that it lives all the same.
    closed_at: Option<BootInstant>,
}

impl ServerActor {
    async fn run(
        mut self,
        mut configured: watch::Receiver<ServerSettings>,
        mut trusted: mpsc::Receiver<()>,
        mut outcomes: mpsc::Receiver<Outcome>,
    ) {
        let (mut network, mut hints) = (self.changes.network.clone(), self.changes.hints.clone());
        loop {
            self.start_what_is_due();
            let probe_at = self.detector.poll_probe().filter(|_| !self.probing);
            tokio::select! {
                () = wait_until(probe_at) => {}
                () = wait_until(self.ask_other_at()) => {}
                () = wait_until(self.look_again_at) => (self.look_again, self.look_again_at) = (true, None),
                () = wait_until(self.detector.poll_timeout()) => {
                    let changed = self.detector.handle_timeout(clock::now());
                    self.publish(changed);
                }
                Some(outcome) = outcomes.recv() => self.take_in(outcome).await,
                changed = configured.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let before = std::mem::replace(&mut self.settings, configured.borrow_and_update().clone());
                    if before.only_on != self.settings.only_on {
                        (self.look_again, self.looks_count_from) = (true, clock::now());
                    }
                    self.detector.reconfigure(detector_spec(&self.settings));
                }
                Some(()) = trusted.recv() => self.trust_stranger(),
                changed = network.changed() => {
                    changed.ok(); // the watcher has ended: probes go on without it
                    self.look_again = true;
                }
                changed = hints.changed() => {
                    changed.ok();
                    self.heed_hints();
                }
                () = self.sleep.woken() => {}
            }
            while let Some(news) = self.sleep.news() {
                match news {
                    News::Began => {}
                    News::Ended { .. } => self.resumed(),
                }
            }
        }
    }

    /// What was known before the host slept says nothing of now.
    fn resumed(&mut self) {
        self.unanswered.clear();
        let changed = self.detector.handle_resumed(clock::now());
        self.publish(changed);
        self.addresses.forget();
        (self.look_again, self.looks_count_from) = (true, clock::now());
    }

    /// Nobody has it configured any more: a veil laid now would outlive it.
    fn is_gone(&self) -> bool {
        self.view.is_closed()
    }

    fn address(&self) -> Option<IpAddr> {
        self.view.borrow().address
    }

    fn ask_other_at(&self) -> Option<BootInstant> {
        let at = self.addresses.poll_ask(self.address(), self.detector.trust());
        at.filter(|_| !self.asking_other && self.detector.may_ask())
    }

    /// Probes and looks run beside the loop, one of each at most.
    fn start_what_is_due(&mut self) {
        let now = clock::now();
        let address = self.address();
        let doubted = !self.looked_up || matches!(self.detector.trust(), Trust::Dead { .. });
        // another network's resolver knows other names
        let is_name = self.settings.host.parse::<IpAddr>().is_err() && self.detector.may_ask();
        if is_name && doubted && !self.resolving && now >= self.resolve_at {
            self.resolving = true;
            self.resolve_at = now + RESOLVE_INTERVAL;
            let host = self.settings.host.clone();
            self.start(async move { Outcome::Resolved(resolve(&host).await) });
        }
        let is_due = self.detector.poll_probe().is_some_and(|at| at <= now);
        if is_due && !self.probing && !(self.resolving && address.is_none()) {
            self.probing = true;
            let within = self.detector.probe_timeout();
            let dead = matches!(self.detector.trust(), Trust::Dead { .. });
            let unanswered = address.and_then(|address| self.unanswered.remove(&address));
            self.start(async move {
                let started = clock::now();
                let (probed, unanswered) = match address {
                    Some(address) if dead => probe::probe_dead(address, within, unanswered).await,
                    Some(address) => (probe::probe(address, within).await, None),
                    None => (Probed::plainly(Verdict::Unresolved), None),
                };
                Outcome::Probed { address, started, probed, unanswered }
            });
        }
        if self.ask_other_at().is_some_and(|at| at <= now)
            && let Some(address) = self.addresses.next_to_ask(now, address, self.settings.probe.interval)
        {
            self.asking_other = true;
            let within = self.detector.probe_timeout();
            let unanswered = self.unanswered.remove(&address);
            self.start(async move {
                let (probed, unanswered) = probe::probe_dead(address, within, unanswered).await;
                Outcome::AskedOther { address, probed, unanswered }
            });
        }
        if self.look_again && !self.looking {
            (self.looking, self.look_again, self.look_again_at) = (true, false, None);
            let only_on = self.settings.only_on.clone();
            let looking = async move { look(&only_on, address).await };
            self.start(async move { Outcome::Looked { address, started: now, trouble: looking.await } });
        }
    }

    fn start(&self, what: impl Future<Output = Outcome> + Send + 'static) {
        let outcome = self.outcome.clone();
        let task = async move {
            let _ = outcome.send(what.await).await; // the server is no longer configured
        };
        tokio::spawn(task.in_current_span());
    }

    async fn take_in(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Probed { address, started, probed, unanswered } => {
                self.probing = false;
                self.keep(address, unanswered);
                if address == self.address() {
                    self.probed(started, probed);
                    let (trust, answers) = (self.detector.trust(), self.detector.answers());
                    if let Some(other) = self.addresses.handle_present(clock::now(), trust, answers) {
                        info!(address = %other, "the server answers at another address of its name, and for long enough not at this one");
                        self.follow(other).await;
                    }
                }
            }
            Outcome::AskedOther { address, probed, unanswered } => {
                self.asking_other = false;
                self.keep(Some(address), unanswered);
                debug!(%address, verdict = %probed.verdict, "another address");
                let answers = self.detector.is_itself(probed);
                self.addresses.handle_other(clock::now(), self.address(), address, answers);
            }
            Outcome::Looked { address, started, trouble } => {
                self.looking = false;
                match trouble {
                    Ok(trouble) if address == self.address() && started >= self.looks_count_from => {
                        self.looked(trouble).await;
                    }
                    Ok(_) => {} // it is being looked anew
                    Err(error) => {
                        warn!(%error, "cannot see whether this host is on the server's network");
                        self.look_again_at = Some(clock::now() + LOOK_RETRY);
                    }
                }
            }
            Outcome::Resolved(found) => {
                self.resolving = false;
                self.resolved(&found).await;
            }
        }
    }

    /// Until the next probe there, unless the server lives.
    fn keep(&mut self, address: Option<IpAddr>, unanswered: Option<Unanswered>) {
        if let (Some(address), Some(unanswered)) = (address, unanswered) {
            self.unanswered.insert(address, unanswered);
        }
        if !matches!(self.detector.trust(), Trust::Dead { .. }) || !self.detector.may_ask() {
            self.unanswered.clear();
        }
    }

    async fn resolved(&mut self, found: &[IpAddr]) {
        if !self.detector.may_ask() {
            return; // it was not the resolver of the server's network, or hardly
        }
        let Some(address) = self.addresses.resolved(found, self.address()) else { return };
        self.looked_up = true;
        if Some(address) != self.address() {
            info!(%address, host = self.settings.host, "resolved");
            self.follow(address).await;
        }
    }

    /// The server is at another address from now on.
    async fn follow(&mut self, address: IpAddr) {
        if self.is_gone() {
            return;
        }
        self.network.veil(&self.settings.id.to_string(), address).await;
        self.view.send_modify(|view| view.address = Some(address));
        self.remember();
        self.hints = self.changes.hints_of(address);
        self.detector.handle_change_of_network(clock::now());
        self.look_again = true;
    }

    fn probed(&mut self, started: BootInstant, probed: Probed) {
        let now = clock::now();
        debug!(verdict = %probed.verdict, took = ?now.since(started), "probe");
        let changed = self.detector.handle_probe(started, now, probed);
        self.remember();
        // why it failed may be found out at home
        self.look_again |= matches!(changed, Some(Trust::Suspect { verdict }) if verdict != Verdict::Refused);
        self.publish(changed);
        match self.detector.trust() {
            // which of its shares that concerns, each finds out for itself
            Trust::Trusted if self.closed_at.take_if(|at| *at <= started).is_some() => {
                self.view.send_modify(|view| view.closed += 1);
            }
            Trust::Dead { .. } => self.closed_at = None, // every connection is made anew after that
            Trust::Unknown | Trust::Trusted | Trust::Suspect { .. } => {}
        }
    }

    fn remember(&self) {
        let memory = ServerMemory { identity: self.detector.identity(), address: self.address() };
        self.remember.send_if_modified(|known| {
            let changed = *known != memory;
            *known = memory;
            changed
        });
    }

    fn trust_stranger(&mut self) {
        self.detector.trust_stranger(clock::now());
        self.remember();
        info!(identity = ?self.detector.identity().map(|identity| identity.to_string()), "trusted by an operator");
        self.publish(None);
    }

    async fn looked(&mut self, trouble: Trouble) {
        let could_ask = self.detector.may_ask();
        let changed = self.detector.handle_local(clock::now(), trouble.as_ref().map(|(trouble, _)| *trouble));
        if self.detector.may_ask() != could_ask {
            self.unanswered.clear(); // what is kept is asked about by the kernel each second
            self.addresses.forget();
            self.resolve_at = clock::now();
        }
        let off_network = self.address().filter(|_| !self.detector.may_ask() && !self.is_gone());
        self.network.keep_silent(&self.settings.id.to_string(), off_network).await;
        let said = trouble.map(|(_, said)| said);
        if self.view.borrow().local_trouble != said {
            match &said {
                Some(said) => warn!(trouble = said, "this host cannot reach the server"),
                None => info!("this host has a way to the server again"),
            }
            self.view.send_modify(|view| view.local_trouble = said);
        }
        self.publish(changed);
    }

    /// The server said FIN or RST to the kernel, which the veil has swallowed.
    fn heed_hints(&mut self) {
        let Some(heard) = self.address().map(|address| self.changes.hints_of(address)) else { return };
        if std::mem::replace(&mut self.hints, heard) != heard {
            debug!("the server has closed a connection");
            self.closed_at = Some(clock::now());
            self.detector.handle_hint(clock::now());
        }
    }

    fn publish(&self, changed: Option<Trust>) {
        let now = clock::now();
        let before = self.view.borrow().clone();
        if let Some(trust) = changed
            && std::mem::discriminant(&before.trust) != std::mem::discriminant(&trust)
        {
            match trust {
                Trust::Suspect { verdict } | Trust::Dead { verdict } => {
                    info!(?trust, whose = ?whose(verdict), "trust changed");
                }
                Trust::Unknown | Trust::Trusted => info!(?trust, "trust changed"),
            }
        }
        let flapping = self.detector.flapping(now);
        if let (None, Some(Flapping { outages, must_answer_for })) = (before.flapping, flapping) {
            warn!(outages, ?must_answer_for, "the server comes and goes: it has to answer for longer");
        }
        let latency = self.detector.latency().or(before.latency);
        match (before.latency.is_some_and(|before| before.slow), latency.filter(|latency| latency.slow)) {
            (false, Some(Latency { last, median, .. })) => warn!(?last, ?median, "the server answers slowly"),
            (true, None) => info!("the server answers as quickly as it used to"),
            (false, None) | (true, Some(_)) => {}
        }
        let (trust, stranger) = (self.detector.trust(), self.detector.stranger());
        self.view.send_if_modified(|view| {
            let wakes = view.trust != trust;
            (view.latency, view.flapping, view.trust, view.stranger) = (latency, flapping, trust, stranger);
            wakes
        });
    }
}

fn whose(verdict: Verdict) -> &'static str {
    match verdict.whose() {
        Whose::Host => "this host's trouble",
        Whose::Server => "the server's trouble, or the network's",
    }
}

async fn resolve(host: &str) -> Vec<IpAddr> {
    match worker::ask(&Request::Resolve { host: host.to_owned() }, RESOLVE_WITHIN).await {
        Ok(Answer::Addresses(addresses)) => addresses,
        Ok(_) => Vec::new(),
        Err(error) => {
            warn!(%error, host, "name not resolved");
            Vec::new()
        }
    }
}

/// What is wrong with this host's way to a server; an error if it cannot be said whether it is on one of the server's networks. In a
/// worker: links are asked for under the kernel's one lock of all network configuration (RTNL), behind which NetworkManager hung in
/// the incident.
async fn look(only_on: &[HomeNetwork], server: Option<IpAddr>) -> Result<Trouble, worker::Failed> {
    if !only_on.is_empty()
        && let Err(why) = network::find(only_on, &worker::list_interfaces(LOOK_WITHIN).await?)
    {
        return Ok(Some((LocalTrouble::OffNetwork, why)));
    }
    let Some(server) = server else { return Ok(None) };
    let server = SocketAddr::new(server, probe::SMB_PORT);
    match worker::ask(&Request::LookAtRoute { server }, LOOK_WITHIN).await {
        Ok(Answer::Route { trouble }) => Ok(trouble),
        Ok(_) => Ok(None),
        Err(error) => {
            warn!(%error, "cannot look at this host's way to the server");
            Ok(None)
        }
    }
}
