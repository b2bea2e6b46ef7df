//! Virtual time: what will happen, and when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nasmount::share::consumers::{Demand, RunId, UnitEvent};
use nasmount::share::detector::{Probed, Trust};
use nasmount::share::effect::OpId;
use nasmount::share::failure::FailureClass;
use nasmount::share::{BootInstant, Event, Input, State};

use crate::daemon::Daemon;
use crate::host::Host;
use crate::invariants::{self, Check, Violation};
use crate::jobs::Job;
use crate::planted::Planted;
use crate::schedule::{Fault, Schedule, Setup};
use crate::watch::Watch;
use crate::workers::Worker;

/// How long after the last fault everything must be well again.
const LIVENESS: Duration = Duration::from_secs(15 * 60);
/// How long it must stay well: a probe through the share and its deadline.
const REST: Duration = Duration::from_secs(40);
/// No run needs more; a machine that does goes round in circles.
const MOST_STEPS: u64 = 100_000;

/// Something that will happen. What belongs to a daemon names its generation, and means nothing to a later one.
#[derive(Clone, Debug)]
pub enum Happening {
    Fault(Fault),
    Heal,
    /// After the healing an operator undoes what operators did.
    OperatorUndoes {
        share: usize,
    },
    DaemonStarts,
    ProbeEnds {
        generation: u64,
        server: usize,
        address: u32,
        started: BootInstant,
        probed: Probed,
    },
    OtherAsked {
        generation: u64,
        server: usize,
        address: u32,
        probed: Probed,
    },
    Resolved {
        generation: u64,
        server: usize,
    },
    WorkerDue {
        generation: u64,
        share: usize,
        op: OpId,
        last: bool,
    },
    JobDue {
        generation: u64,
        op: OpId,
    },
    StopJobEnds {
        unit: usize,
        job: u64,
    },
    MountTableChanged {
        generation: u64,
        share: usize,
    },
    UnitChanged {
        generation: u64,
        unit: usize,
        running: bool,
        run: Option<RunId>,
    },
}

/// What is next.
#[derive(Clone, Copy)]
enum Next {
    Happening,
    Waking,
    Probe(usize),
    OtherAddress(usize),
    Detector(usize),
    Share(usize),
    Units,
}

/// Figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub steps: u64,
    /// How many of each kind there were, and how many made a difference.
    pub faults: BTreeMap<&'static str, (u64, u64)>,
    /// Changes of state of shares.
    pub transitions: BTreeSet<(State, State)>,
    pub lasted: Duration,
}

/// Everything.
#[derive(Clone)]
pub struct World {
    pub now: BootInstant,
    pub rng: fastrand::Rng,
    /// What is configured at present.
    pub setup: Setup,
    pub host: Host,
    pub daemon: Option<Daemon>,
    pub generation: u64,
    pub workers: BTreeMap<(usize, OpId), Worker>,
    /// Mounts that wait until the one in flight has ended.
    pub mount_queue: VecDeque<(usize, OpId)>,
    pub jobs: BTreeMap<OpId, Job>,
    /// What is sent to systemd is sent in order: not before this.
    pub told_until: BootInstant,
    pub hang_next: Vec<(String, u64, bool)>,
    pub fail_next: Vec<(String, FailureClass, u32)>,
    pub watch: Watch,
    pub planted: Option<Planted>,
    pub figures: Figures,
    /// What happened, for people; only if asked for.
    pub trace: Option<Vec<String>>,
    queue: BTreeMap<(BootInstant, u64), Happening>,
    sequence: u64,
    /// Since when the host has been going down.
    pub shuts_down: Option<BootInstant>,
    /// Since when a sleep has been announced, until it is over.
    pub sleep_announced: Option<BootInstant>,
    /// Since when the host sleeps, and until when.
    pub asleep: Option<(BootInstant, BootInstant)>,
    pub healed_at: Option<BootInstant>,
    well_since: Option<BootInstant>,
    /// Kills the daemon after this many of its inputs, once.
    pub dies_at_input: Option<u64>,
    pub inputs: u64,
}

impl World {
    /// A world at rest in which a daemon has just started.
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let start = BootInstant::from_boot(Duration::from_secs(100));
        let mut world = Self {
            now: start,
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            setup: setup.clone(),
            host: Host::new(setup),
            daemon: None,
            generation: 0,
            workers: BTreeMap::new(),
            mount_queue: VecDeque::new(),
            jobs: BTreeMap::new(),
            told_until: start,
            hang_next: Vec::new(),
            fail_next: Vec::new(),
            watch: Watch::new(setup),
            planted: None,
            figures: Figures::default(),
            trace: None,
            queue: BTreeMap::new(),
            sequence: 0,
            shuts_down: None,
            sleep_announced: None,
            asleep: None,
            healed_at: None,
            well_since: None,
            dies_at_input: None,
            inputs: 0,
        };
        world.after(Duration::ZERO, Happening::DaemonStarts);
        world
    }

    /// Runs a schedule to its end: all faults, then until everything is well again.
    pub fn run(schedule: &Schedule, planted: Option<Planted>, record: bool) -> (Self, Check) {
        let mut world = Self::new(&schedule.setup, schedule.seed);
        world.planted = planted;
        world.dies_at_input = schedule.dies_at_input;
        world.trace = record.then(Vec::new);
        for (at, fault) in &schedule.faults {
            world.after(Duration::from_millis(*at), Happening::Fault(fault.clone()));
        }
        world.after(Duration::from_millis(schedule.ends_at() + 1), Happening::Heal);
        let began = world.now;
        let healed_at = began + Duration::from_millis(schedule.ends_at() + 2);
        let check = world.run_to(healed_at).and_then(|()| world.until_well());
        world.figures.lasted = world.now.since(began);
        (world, check)
    }

    /// Runs until this instant.
    pub fn run_to(&mut self, until: BootInstant) -> Check {
        while self.next().is_some_and(|(at, _)| at <= until) {
            self.step()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Liveness: nothing goes wrong any more, so everything becomes well and stays so.
    pub fn until_well(&mut self) -> Check {
        self.well_since = None;
        loop {
            match (invariants::all_is_well(self), self.well_since) {
                (Ok(()), None) => self.well_since = Some(self.now),
                (Ok(()), Some(since)) if self.now.since(since) > REST => return Ok(()),
                (Ok(()), Some(_)) => {}
                (Err(missing), _) => {
                    self.well_since = None;
                    // what went wrong while the host slept comes after it
                    if self.healed_at.is_some_and(|at| self.now > at + LIVENESS) {
                        return Err(Violation::new("liveness", self.now, missing.say(self)));
                    }
                }
            }
            self.step()?;
        }
    }

    /// Puts something into the future.
    pub fn after(&mut self, delay: Duration, what: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), what);
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {}", self.now, line()));
        }
    }

    /// A latency between `from` and `to` milliseconds.
    pub fn latency(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..=to))
    }

    fn next(&self) -> Option<(BootInstant, Next)> {
        if let Some((_, until)) = self.asleep {
            return Some((until, Next::Waking));
        }
        let mut next = self.queue.keys().next().map(|(at, _)| (*at, Next::Happening));
        let mut consider = |at: BootInstant, what: Next| {
            if next.is_none_or(|(soonest, _)| at < soonest) {
                next = Some((at, what));
            }
        };
        if let Some(daemon) = &self.daemon {
            for (server, detector) in daemon.detectors.iter().enumerate().filter(|(server, _)| !daemon.probing[*server])
            {
                if let Some(at) = detector.poll_probe() {
                    consider(at, Next::Probe(server));
                }
            }
            for server in 0..daemon.detectors.len() {
                if let Some(at) = daemon.ask_other_at(server, self.host.servers[server].known) {
                    consider(at, Next::OtherAddress(server));
                }
            }
            for (server, detector) in daemon.detectors.iter().enumerate() {
                if let Some(at) = detector.poll_timeout() {
                    consider(at, Next::Detector(server));
                }
            }
            for (share, machine) in daemon.shares.iter().enumerate() {
                if let Some((at, _)) = machine.poll_timeout() {
                    consider(at, Next::Share(share));
                }
            }
            if let Some(at) = daemon.consumers.poll_timeout() {
                consider(at, Next::Units);
            }
        }
        next
    }

    /// The next thing that happens.
    pub fn step(&mut self) -> Check {
        let Some((at, next)) = self.next() else { return Ok(()) };
        self.now = self.now.max(at);
        self.figures.steps += 1;
        if self.figures.steps > MOST_STEPS {
            return Err(Violation::new("livelock", self.now, "more steps than any run needs".into()));
        }
        match next {
            Next::Happening => match self.queue.pop_first() {
                Some((_, happening)) => self.happen(happening),
                None => Ok(()),
            },
            Next::Waking => self.wake(),
            Next::Probe(server) => self.start_probe(server),
            Next::OtherAddress(server) => self.ask_other_address(server),
            Next::Detector(server) => self.detector_timeout(server),
            Next::Share(share) => self.feed(share, Some(Input::Timeout)),
            Next::Units => self.feed_units(None),
        }
    }

    fn happen(&mut self, happening: Happening) -> Check {
        let of = self.generation;
        match happening {
            Happening::Fault(fault) => {
                let kind = fault.kind();
                let had_effect = self.fault(fault)?;
                self.count(kind, 1, u64::from(had_effect));
                self.nudge_waiting();
                Ok(())
            }
            Happening::Heal => self.heal(),
            Happening::OperatorUndoes { share } => self.operator_undoes(share),
            Happening::DaemonStarts => self.start_daemon(),
            Happening::ProbeEnds { generation, server, address, started, probed } if generation == of => {
                self.end_probe(server, address, started, probed)
            }
            Happening::OtherAsked { generation, server, address, probed } if generation == of => {
                self.other_asked(server, address, probed);
                Ok(())
            }
            Happening::Resolved { generation, server } if generation == of => self.resolved(server),
            Happening::WorkerDue { generation, share, op, last } if generation == of => {
                self.worker_due(share, op, last)
            }
            Happening::JobDue { generation, op } if generation == of => self.job_due(op),
            Happening::StopJobEnds { unit, job } => self.stop_job_ends(unit, job),
            Happening::MountTableChanged { generation, share } if generation == of => {
                self.feed(share, Some(Input::Event(Event::MountTableChanged)))
            }
            Happening::UnitChanged { generation, unit, running, run } if generation == of => {
                self.unit_changed(unit, running, run)
            }
            Happening::ProbeEnds { .. }
            | Happening::OtherAsked { .. }
            | Happening::Resolved { .. }
            | Happening::WorkerDue { .. }
            | Happening::JobDue { .. }
            | Happening::MountTableChanged { .. }
            | Happening::UnitChanged { .. } => Ok(()),
        }
    }

    /// The daemon is told before anything else that happened meanwhile.
    fn wake(&mut self) -> Check {
        let Some((since, until)) = self.asleep.take() else { return Ok(()) };
        let asleep = until.since(since);
        self.watch.trouble(until);
        self.note(|| "the host wakes".into());
        self.watch.slept(asleep, until);
        // as it is read from now on: written down with it is how long the host had slept
        for since in self.host.shares.iter_mut().filter_map(|share| share.disk.outage_since.as_mut()) {
            *since = *since + asleep;
        }
        self.sleep_announced = None;
        self.tell_of_waking(asleep)
    }

    /// Servers and shares hear of it at the same time.
    pub fn tell_of_waking(&mut self, asleep: Duration) -> Check {
        let now = self.now;
        for server in 0..self.setup.servers.len() {
            let Some(daemon) = &mut self.daemon else { return Ok(()) };
            daemon.addresses[server].forget();
            let Some(trust) = daemon.detectors[server].handle_resumed(now) else { continue };
            for share in self.setup.shares_on(server) {
                self.watch.shares[share].trust_changed(now, trust, None);
            }
        }
        if self.planted == Some(Planted::SleepNotTold) {
            return Ok(());
        }
        for share in 0..self.setup.shares.len() {
            self.share_input(share, Some(Input::Event(Event::Resumed { asleep })))?;
        }
        self.units_input(Some(UnitEvent::Resumed { asleep }))?;
        self.agree()?;
        (0..self.setup.servers.len()).try_for_each(|server| self.look_at_the_host(server))
    }

    /// Counts faults of a kind, and those that made a difference.
    pub fn count(&mut self, kind: &'static str, all: u64, effective: u64) {
        let counted = self.figures.faults.entry(kind).or_default();
        counted.0 += all;
        counted.1 += effective;
    }

    /// A share's state; `None` while no daemon runs.
    pub fn state_of(&self, share: usize) -> Option<State> {
        self.daemon.as_ref().map(|daemon| daemon.shares[share].state())
    }

    /// What a share demands of its consumers; `None` while no daemon runs.
    pub fn demand_of(&self, share: usize) -> Option<Demand> {
        self.daemon.as_ref().map(|daemon| daemon.shares[share].demand())
    }

    /// Is nothing in flight for this share?
    pub fn idle(&self, share: usize) -> bool {
        self.daemon.as_ref().is_none_or(|daemon| daemon.shares[share].operation().is_none())
    }

    /// Is nothing in flight on any unit?
    pub fn units_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// What is believed of a share's server.
    pub fn trust(&self, share: usize) -> Trust {
        let server = self.setup.shares[share].server;
        self.daemon.as_ref().map_or(Trust::Unknown, |daemon| daemon.detectors[server].trust())
    }
}
