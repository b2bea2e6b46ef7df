//! The daemon in the world: the real machines, fed as the shell feeds them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use nasmount::share::consumers::{Demand, HeldUnit, Progress, UnitEffect, UnitEvent};
use nasmount::share::detector::addresses::Addresses;
use nasmount::share::detector::{Detector, Identity, Probed, Trust, Verdict};
use nasmount::share::event::Memory;
use nasmount::share::{
    BootInstant, Command, Consumers, Effect, Event, Input, OpId, Reason, Share, State, Transition, Verdict as Answer,
};

use crate::invariants::{self, Check, Violation};
use crate::planted::Planted;
use crate::schedule::{ServerIs, share_name};
use crate::world::{Happening, World};

/// Rounds in which demands and progress settle after one input; more is a quarrel.
const MOST_ROUNDS: usize = 20;

/// How long a name takes to be resolved when the daemon has started.
const RESOLVED_WITHIN: Duration = Duration::from_millis(20);

/// The daemon process.
#[derive(Clone, Debug)]
pub struct Daemon {
    pub shares: Vec<Share>,
    pub detectors: Vec<Detector>,
    pub consumers: Consumers,
    /// A probe of this server is in flight.
    pub probing: Vec<bool>,
    /// What the name of each server leads to.
    pub addresses: Vec<Addresses>,
    /// One at another of its addresses is.
    asking_other: Vec<bool>,
    /// Its name has been looked up.
    looked_up: Vec<bool>,
    told_demand: Vec<Demand>,
    told_progress: Vec<Option<(Demand, Progress)>>,
    written_late: (Vec<Memory>, BTreeMap<String, HeldUnit>),
}

fn abandons(effect: &UnitEffect) -> Option<OpId> {
    match effect {
        UnitEffect::Abandon { op } => Some(*op),
        UnitEffect::Start { .. } => None,
    }
}

impl Daemon {
    /// When another address of a server is to be asked.
    pub fn ask_other_at(&self, server: usize, known: u32) -> Option<BootInstant> {
        let at = self.addresses[server].poll_ask(Some(ip(known)), self.detectors[server].trust());
        at.filter(|_| !self.asking_other[server] && self.detectors[server].may_ask())
    }
}

fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

fn number(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(_) => unreachable!("the world has no IPv6"),
    }
}

/// The answer of a machine.
fn answer(of: u8) -> Probed {
    Probed { verdict: Verdict::Alive, identity: Some(Identity([of; 16])) }
}

impl World {
    pub fn start_daemon(&mut self) -> Check {
        self.generation += 1;
        let (now, setup) = (self.now, &self.setup);
        let shares = 0..setup.shares.len();
        let seeds: Vec<u64> = shares.clone().map(|_| self.rng.u64(..)).collect();
        self.daemon = Some(Daemon {
            shares: shares.clone().map(|share| Share::new(setup.share_spec(share), seeds[share], now)).collect(),
            detectors: (0..setup.servers.len())
                .map(|server| Detector::new(setup.detector_spec(server), self.host.servers[server].pinned, now))
                .collect(),
            consumers: Consumers::new(setup.unit_specs(), self.host.held.clone(), now),
            probing: vec![false; setup.servers.len()],
            addresses: vec![Addresses::default(); setup.servers.len()],
            asking_other: vec![false; setup.servers.len()],
            looked_up: vec![false; setup.servers.len()],
            told_demand: vec![Demand::AsTheyAre; setup.shares.len()],
            told_progress: vec![None; setup.shares.len()],
            written_late: (self.host.shares.iter().map(|share| share.disk.clone()).collect(), self.host.held.clone()),
        });
        for server in &mut self.host.servers {
            server.destroyed_at.clear();
        }
        self.watch.daemon_started(now);
        self.note(|| "daemon starts".into());
        for share in shares {
            self.share_input(share, None)?;
        }
        if self.sleep_announced.is_some() {
            self.tell_of_sleep()?; // logind is asked
        }
        self.after_units_input()?;
        for server in 0..self.setup.servers.len() {
            self.look_at_the_host(server)?;
            let generation = self.generation;
            self.after(RESOLVED_WITHIN, Happening::Resolved { generation, server });
        }
        (0..self.host.units.len()).for_each(|unit| self.unit_changes(unit));
        self.agree()
    }

    /// kill -9: what was in flight ends unseen or vanishes.
    pub fn kill_daemon(&mut self, down_for: Duration) -> Check {
        self.daemon = None;
        self.note(|| "daemon dies".into());
        self.mount_queue.clear();
        for (_, worker) in std::mem::take(&mut self.workers) {
            if !worker.queued && self.rng.u8(0..5) < 2 {
                self.end_unseen(&worker);
            }
        }
        self.host.close_sinkholes(); // the daemon itself is what refuses
        for (_, job) in std::mem::take(&mut self.jobs) {
            if !job.told && self.host.bus_lost.is_none() && self.rng.u8(0..5) < 2 {
                self.act(job.unit, job.step)?;
            }
        }
        self.generation += 1;
        if self.shuts_down.is_none() {
            self.after(down_for, Happening::DaemonStarts); // else systemd starts nothing any more
        }
        Ok(())
    }

    pub fn start_probe(&mut self, server: usize) -> Check {
        invariants::nothing_is_sent_off_its_network(self, server)?;
        let address = self.host.servers[server].known;
        let (probed, took) = self.probe(server, address);
        if let Some(daemon) = &mut self.daemon {
            daemon.probing[server] = true;
        }
        let generation = self.generation;
        self.after(took, Happening::ProbeEnds { generation, server, address, started: self.now, probed });
        Ok(())
    }

    /// What a probe of an address that starts now will find, and how long it takes.
    fn probe(&mut self, server: usize, address: u32) -> (Probed, Duration) {
        let timeout = self.daemon.as_ref().map_or(Duration::ZERO, |daemon| daemon.detectors[server].probe_timeout());
        match self.host.servers[server].seen_at(address) {
            ServerIs::Up => (answer(1), self.latency(1, 20)),
            ServerIs::Slow => (answer(1), self.latency(200, 900)),
            ServerIs::Stranger => (answer(2), self.latency(1, 20)),
            ServerIs::Refusing => (Probed::plainly(Verdict::Refused), self.latency(1, 3)),
            ServerIs::Silent | ServerIs::Hung => (Probed::plainly(Verdict::Silent), timeout),
        }
    }

    pub fn end_probe(&mut self, server: usize, address: u32, started: BootInstant, probed: Probed) -> Check {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.probing[server] = false;
        if address != self.host.servers[server].known {
            return Ok(());
        }
        let changed = daemon.detectors[server].handle_probe(started, now, probed);
        self.host.servers[server].pinned = daemon.detectors[server].identity();
        self.trust_changed(server, changed)?;
        let Some(daemon) = &mut self.daemon else { return Ok(()) }; // an input may kill it
        let (trust, answers) = (daemon.detectors[server].trust(), daemon.detectors[server].answers());
        match daemon.addresses[server].handle_present(now, trust, answers) {
            Some(other) => self.follow(server, number(other)),
            None => Ok(()),
        }
    }

    pub fn ask_other_address(&mut self, server: usize) -> Check {
        invariants::nothing_is_sent_off_its_network(self, server)?;
        let (now, known) = (self.now, self.host.servers[server].known);
        let interval = self.setup.detector_spec(server).interval;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let next = daemon.addresses[server].next_to_ask(now, Some(ip(known)), interval);
        let Some(address) = next else { return Ok(()) };
        daemon.asking_other[server] = true;
        let (generation, address) = (self.generation, number(address));
        let (probed, took) = self.probe(server, address);
        self.after(took, Happening::OtherAsked { generation, server, address, probed });
        Ok(())
    }

    pub fn other_asked(&mut self, server: usize, address: u32, probed: Probed) {
        let (now, known) = (self.now, self.host.servers[server].known);
        let Some(daemon) = &mut self.daemon else { return };
        daemon.asking_other[server] = false;
        let answers = daemon.detectors[server].is_itself(probed);
        daemon.addresses[server].handle_other(now, Some(ip(known)), ip(address), answers);
    }

    /// The patience with what is in flight on a share, if it is mounted.
    fn at_stake(&self, share: usize) -> Option<Duration> {
        let patience = Duration::from_millis(self.setup.shares[share].patience_ms);
        let patience = if self.sleep_announced.is_some() { Duration::ZERO } else { patience };
        self.host.shares[share].clone.then_some(patience)
    }

    /// What a server is believed to be changed, if it did.
    fn trust_changed(&mut self, server: usize, changed: Option<Trust>) -> Check {
        let Some(trust) = changed else { return Ok(()) };
        self.note(|| format!("server {server} {trust:?}"));
        if matches!(trust, Trust::Dead { .. }) {
            self.look_the_name_up(server);
        }
        for share in self.setup.shares_on(server).collect::<Vec<_>>() {
            let at_stake = self.at_stake(share);
            self.watch.shares[share].trust_changed(self.now, trust, at_stake);
            self.share_input(share, Some(Input::Event(Event::ServerTrustChanged { trust })))?;
        }
        self.agree()
    }

    /// The name of a server that does not answer is looked up again and again: it may have moved.
    fn look_the_name_up(&mut self, server: usize) {
        let (generation, soon) = (self.generation, self.latency(10, 15_000));
        self.after(soon, Happening::Resolved { generation, server });
    }

    /// What the name of a server leads to; looked up when the daemon has started, and while it does not answer.
    pub fn resolved(&mut self, server: usize) -> Check {
        let at = &self.host.servers[server];
        let (known, found): (u32, Vec<IpAddr>) = (at.known, at.leads_to().map(ip).collect());
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let is_dead = matches!(daemon.detectors[server].trust(), Trust::Dead { .. });
        if std::mem::replace(&mut daemon.looked_up[server], true) && !is_dead {
            return Ok(());
        }
        let address = daemon.addresses[server].resolved(&found, Some(ip(known))).map_or(known, number);
        if is_dead {
            self.look_the_name_up(server);
        }
        if address == known { Ok(()) } else { self.follow(server, address) }
    }

    fn follow(&mut self, server: usize, address: u32) -> Check {
        self.host.servers[server].known = address;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.detectors[server].handle_change_of_network(self.now);
        self.note(|| format!("server {server} is at {address} now"));
        for share in self.setup.shares_on(server).collect::<Vec<_>>() {
            self.share_input(share, Some(Input::Event(Event::ServerMoved)))?;
        }
        self.agree()
    }

    /// What is wrong with the host itself, if anything, is told to the detector.
    pub fn look_at_the_host(&mut self, server: usize) -> Check {
        let (now, trouble) = (self.now, self.host.servers[server].local);
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let changed = daemon.detectors[server].handle_local(now, trouble);
        self.trust_changed(server, changed)
    }

    /// A deadline of a detector.
    pub fn detector_timeout(&mut self, server: usize) -> Check {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let changed = daemon.detectors[server].handle_timeout(now);
        invariants::detector_deadlines_move_on(now, &daemon.detectors[server])?;
        self.trust_changed(server, changed)
    }

    /// One input of a share, and all that follows from it at once.
    pub fn feed(&mut self, share: usize, input: Option<Input>) -> Check {
        self.share_input(share, input)?;
        self.agree()
    }

    /// One input of the consumers, and all that follows from it at once; a timeout if there is no event.
    pub fn feed_units(&mut self, event: Option<UnitEvent>) -> Check {
        self.units_input(event)?;
        self.agree()
    }

    /// A command; says whether anything is being done about it.
    pub fn command(&mut self, share: usize, command: Command) -> Result<bool, Violation> {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(false) };
        let machine = &mut daemon.shares[share];
        let before = machine.clone();
        let answer = machine.handle_command(now, command);
        if answer.is_err() && self.planted == Some(Planted::RefusedAndApplied) {
            machine.handle_event(now, Event::MountTableChanged);
        }
        if answer.is_err() && *machine != before {
            let message = format!("{}: {answer:?}", command.name());
            return Err(Violation::new("a refused command changes nothing", now, message));
        }
        self.note(|| format!("{}: {command:?}: {answer:?}", share_name(share)));
        if answer.is_ok() {
            self.watch.shares[share].commanded(command);
        }
        self.after_share_input(share)?;
        self.agree()?;
        Ok(matches!(answer, Ok(Answer::Accepted)))
    }

    /// Feeds a share, writes its memory down, starts its effects.
    pub fn share_input(&mut self, share: usize, input: Option<Input>) -> Check {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let machine = &mut daemon.shares[share];
        if let Some(input) = input {
            let timeout = input == Input::Timeout;
            machine.handle(now, input);
            if timeout {
                invariants::deadlines_move_on(now, machine)?;
            }
        }
        self.after_share_input(share)
    }

    fn after_share_input(&mut self, share: usize) -> Check {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let machine = &mut daemon.shares[share];
        let effects: Vec<Effect> = std::iter::from_fn(|| machine.poll_effect()).collect();
        let changes: Vec<Transition> = std::iter::from_fn(|| machine.poll_transition()).collect();
        let memory = machine.memory();
        self.inputs += 1;
        let at_stake = self.at_stake(share);
        for Transition { from, to, reason, .. } in changes.into_iter().filter(|change| change.from != change.to) {
            self.note(|| format!("{}: {from} -> {to}: {reason}", share_name(share)));
            self.figures.transitions.insert((from, to));
            self.watch.shares[share].state_changed(now, to, at_stake.filter(|_| reason != Reason::Sleep));
            self.watch.shares[share].waits_for_sleep = to == State::Holding && reason == Reason::Sleep;
            invariants::only_who_took_it_off_unmounts(self, share, to, &reason)?;
        }
        let dies = self.dies_at_input.take_if(|input| *input == self.inputs).is_some();
        if let Some(memory) = memory {
            self.write_memory(share, memory, dies);
        }
        if dies {
            return self.kill_daemon(Duration::from_secs(1));
        }
        invariants::effects_are_bounded(now, effects.len())?;
        for effect in effects {
            self.note(|| format!("  {}: {effect:?}", share_name(share)));
            match effect {
                Effect::Start { op, step } => self.start_worker(share, op, step)?,
                Effect::Abandon { op } => self.abandon_worker(share, op)?,
            }
        }
        Ok(())
    }

    /// Feeds the consumers, writes their memory down, starts their effects; a timeout if there is no event.
    pub fn units_input(&mut self, event: Option<UnitEvent>) -> Check {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let consumers = &mut daemon.consumers;
        match event {
            Some(event) => consumers.handle_event(now, event),
            None => {
                consumers.handle_timeout(now);
                invariants::unit_deadlines_move_on(now, consumers)?;
            }
        }
        self.after_units_input()
    }

    fn after_units_input(&mut self) -> Check {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let consumers = &mut daemon.consumers;
        let effects: Vec<UnitEffect> = std::iter::from_fn(|| consumers.poll_effect()).collect();
        let memory = consumers.memory();
        self.inputs += 1;
        let dies = self.dies_at_input.take_if(|input| *input == self.inputs).is_some();
        self.write_held(memory, dies);
        if dies {
            return self.kill_daemon(Duration::from_secs(1));
        }
        invariants::units_are_held_in_order(self, &effects)?;
        // what is abandoned in the same turn is never begun
        let abandoned: Vec<OpId> = effects.iter().filter_map(abandons).collect();
        let begins = |effect: &UnitEffect| match effect {
            UnitEffect::Start { op, .. } => !abandoned.contains(op),
            UnitEffect::Abandon { .. } => true,
        };
        let generation = self.generation;
        for effect in effects.iter().filter(|effect| begins(effect)).cloned() {
            if self.generation != generation {
                return Ok(()); // it died of a late answer to what it has just abandoned
            }
            self.note(|| format!("  {effect:?}"));
            match effect {
                UnitEffect::Start { op, unit, step } => self.start_job(op, &unit, step)?,
                UnitEffect::Abandon { op } => self.abandon_job(op)?,
            }
        }
        Ok(())
    }

    /// Demands go to the consumers and their progress to the shares until nobody has anything new to say.
    pub fn agree(&mut self) -> Check {
        for _ in 0..MOST_ROUNDS {
            let mut news = self.tell_demands()?;
            for share in 0..self.setup.shares.len() {
                let Some((demand, progress)) = self.new_progress(share) else { continue };
                news = true;
                self.share_input(share, Some(Input::Event(Event::ConsumersChanged { demand, progress })))?;
            }
            if !news {
                self.watch_units();
                return invariants::after_input(self);
            }
        }
        Err(Violation::new("shares and consumers agree", self.now, format!("not within {MOST_ROUNDS} rounds")))
    }

    /// What shares demand in the same instant is judged together. `true` if there was anything to tell.
    fn tell_demands(&mut self) -> Result<bool, Violation> {
        let shares = 0..self.setup.shares.len();
        let demands: Vec<(usize, Demand)> = shares.filter_map(|share| Some((share, self.new_demand(share)?))).collect();
        let for_all = self.planted == Some(Planted::OneShareSpeaksForAll);
        let Some(daemon) = self.daemon.as_mut().filter(|_| !demands.is_empty()) else { return Ok(false) };
        for (share, demand) in demands {
            let speaks_for = if for_all && demand == Demand::Run { 0..daemon.shares.len() } else { share..share + 1 };
            for share in speaks_for {
                daemon
                    .consumers
                    .handle_event(self.now, UnitEvent::Demanded { share: share_name(share).to_owned(), demand });
            }
        }
        self.after_units_input()?;
        Ok(true)
    }

    fn new_demand(&mut self, share: usize) -> Option<Demand> {
        let daemon = self.daemon.as_mut()?;
        let demand = daemon.shares[share].demand();
        let told = std::mem::replace(&mut daemon.told_demand[share], demand);
        (told != demand).then_some(demand)
    }

    fn new_progress(&mut self, share: usize) -> Option<(Demand, Progress)> {
        let daemon = self.daemon.as_mut()?;
        let name = share_name(share);
        let progress = (daemon.consumers.demand(name), daemon.consumers.progress(name));
        let told = daemon.told_progress[share].replace(progress);
        (told != Some(progress)).then_some(progress)
    }

    fn write_memory(&mut self, share: usize, memory: Memory, at_once: bool) {
        let Some(daemon) = &mut self.daemon else { return };
        let late = std::mem::replace(&mut daemon.written_late.0[share], memory.clone());
        let is_late = self.planted == Some(Planted::MemoryWrittenLate) && !at_once;
        self.host.shares[share].disk = if is_late { late } else { memory };
    }

    fn write_held(&mut self, held: BTreeMap<String, HeldUnit>, at_once: bool) {
        let Some(daemon) = &mut self.daemon else { return };
        if self.planted == Some(Planted::MemoryWrittenLate) && !at_once {
            self.host.held = std::mem::replace(&mut daemon.written_late.1, held);
        } else {
            self.host.held = held;
        }
    }

    /// Since when each unit could be let go.
    fn watch_units(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        if self.host.held.is_empty() {
            self.watch.units.iter_mut().for_each(|unit| unit.may_go_since = None);
            return;
        }
        for (index, unit) in self.setup.units.iter().enumerate() {
            let held = self.host.held.contains_key(crate::schedule::unit_name(index));
            let may_go = held && unit.needed().all(|need| daemon.shares[need.share].demand() == Demand::Run);
            let since = &mut self.watch.units[index].may_go_since;
            *since = may_go.then(|| since.unwrap_or(self.now));
        }
    }
}
