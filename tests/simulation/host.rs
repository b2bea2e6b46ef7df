//! What survives the daemon: the kernel, systemd, the servers and the files in which the daemon's memory is kept. It does
//! what an operation asks and says how that ended; it knows nothing of why.

use std::collections::{BTreeMap, BTreeSet};

use nasmount::share::consumers::HeldUnit;
use nasmount::share::detector::{Identity, LocalTrouble};
use nasmount::share::event::{Attachment, Done, Memory, Mismatch, Survey};
use nasmount::share::failure::{Failure, FailureClass};
use nasmount::share::{BootInstant, Step};

use crate::schedule::{Cure, ServerIs, Setup};

/// The number of the error into which the kernel turns a refused login when it reconnects.
const EHOSTDOWN: i32 = 112;

/// The address of a server before it moves.
const FIRST_ADDRESS: u32 = 1;

/// The other address of one that has two; that one stays.
const SECOND_ADDRESS: u32 = 1_000;

/// The kernel's connection of a mounted share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Works when the server does.
    Fresh,
    /// Hangs even when the server answers, until its socket is destroyed.
    Stale,
    /// Becomes fresh as soon as the server is reached.
    Reconnecting,
}

/// A server, and this host's rules about it.
#[derive(Clone, Debug)]
pub struct Server {
    pub is: ServerIs,
    /// What keeps this host itself from it.
    pub local: Option<LocalTrouble>,
    /// Who it is, as it was written down.
    pub pinned: Option<Identity>,
    /// Its first address; it may move.
    pub address: u32,
    /// The second, if it has one.
    pub second: Option<u32>,
    /// Those of its addresses at which nothing answers.
    pub dead: BTreeSet<u32>,
    /// The one that nasmount knows, as it was written down.
    pub known: u32,
    /// The shares that want it fenced, and at which address.
    pub fenced_for: BTreeMap<usize, u32>,
    /// The shares that want their logins refused.
    pub sunk_for: BTreeSet<usize>,
    /// By address: when the present daemon began to destroy the sockets to it the last time.
    pub destroyed_at: BTreeMap<u32, BootInstant>,
}

impl Server {
    /// As this host sees it, at an address.
    pub fn seen_at(&self, address: u32) -> ServerIs {
        let is_its = self.leads_to().any(|its| its == address) && !self.dead.contains(&address);
        match self.local {
            Some(LocalTrouble::OffNetwork) => ServerIs::Stranger,
            Some(LocalTrouble::NoLink | LocalTrouble::NoRoute | LocalTrouble::NoAddress) => ServerIs::Silent,
            None if is_its => self.is,
            None => ServerIs::Silent,
        }
    }

    /// What its name leads to.
    pub fn leads_to(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.address).chain(self.second)
    }
}

/// A share: what the server does with it, and what is in place here.
#[derive(Clone, Debug)]
pub struct Place {
    pub server: usize,
    pub silent: Option<Cure>,
    pub refuses: Option<FailureClass>,
    pub connection: Connection,
    pub barrier: bool,
    pub clone: bool,
    /// At which address of the server, and of which source.
    pub clone_of: (u32, u32),
    /// The source that the daemon read in its configuration.
    pub source: u32,
    /// The share lies on the path.
    pub ours: bool,
    /// Somebody took it off since it was last put there.
    pub taken_off: bool,
    /// Somebody else's mount lies on top.
    pub foreign: bool,
    /// The session was set up before the login was refused.
    pub logged_in: bool,
    /// The kernel threw unwritten data away, and has told nobody.
    pub lost: bool,
    pub disk: Memory,
}

impl Place {
    /// What lies on top.
    pub fn attached(&self) -> Attachment {
        match (self.foreign, self.ours) {
            (true, _) => Attachment::Foreign("//other/share".into()),
            (false, true) => Attachment::Share,
            (false, false) => Attachment::Nothing,
        }
    }

    /// Whoever opens the path gets into the share.
    pub fn is_open(&self) -> bool {
        self.ours && !self.foreign
    }
}

/// A consumer's unit.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    pub running: bool,
    /// How often it was started.
    pub runs: u64,
    /// It was started since the boot.
    pub ran: bool,
    /// SIGSTOPped.
    pub frozen: bool,
    /// A stop job of nasmount was queued and nobody has started it since.
    pub stopped_by_us: bool,
    /// The administrator started it after that.
    pub started_by_admin: bool,
    /// The administrator stopped it when it was not nasmount's to start again.
    pub admin_stopped: bool,
    pub enabled: bool,
    pub start_takes_ms: u64,
    pub stop_takes_ms: u64,
    /// The running stop job; a number so that a cancelled one is recognised.
    pub job: Option<u64>,
}

impl Unit {
    /// It starts.
    pub fn starts(&mut self) {
        (self.running, self.ran) = (true, true);
        self.runs += 1;
    }

    /// systemd's InvocationID.
    pub fn run(&self) -> Option<String> {
        self.ran.then(|| self.runs.to_string())
    }
}

/// The host, and the servers as far as the host can tell.
#[derive(Clone, Debug)]
pub struct Host {
    pub servers: Vec<Server>,
    pub shares: Vec<Place>,
    pub units: Vec<Unit>,
    /// What the daemon wrote down of units.
    pub held: BTreeMap<String, HeldUnit>,
    /// `Some(calls_hang)` while systemd cannot be reached.
    pub bus_lost: Option<bool>,
}

/// How an operation went.
pub enum Outcome {
    Ends(Result<Done, Failure>),
    /// It does not return before something changes.
    Waits,
}

impl Host {
    /// The host at the beginning of a run.
    pub fn new(setup: &Setup) -> Self {
        let servers = setup.servers.iter().map(|server| Server {
            is: ServerIs::Up,
            local: None,
            pinned: None,
            address: FIRST_ADDRESS,
            second: server.two_addresses.then_some(SECOND_ADDRESS),
            dead: BTreeSet::new(),
            known: FIRST_ADDRESS,
            fenced_for: BTreeMap::new(),
            sunk_for: BTreeSet::new(),
            destroyed_at: BTreeMap::new(),
        });
        let shares = setup.shares.iter().map(|share| Place {
            server: share.server,
            silent: None,
            refuses: None,
            connection: Connection::Fresh,
            barrier: share.mounted,
            clone: share.mounted,
            clone_of: (FIRST_ADDRESS, 0),
            source: 0,
            ours: share.mounted,
            taken_off: false,
            foreign: false,
            logged_in: true,
            lost: false,
            disk: Memory::default(),
        });
        let units = setup.units.iter().map(|unit| Unit {
            running: unit.running,
            runs: u64::from(unit.running),
            ran: unit.running,
            admin_stopped: !unit.running,
            enabled: unit.enabled,
            start_takes_ms: unit.start_takes_ms,
            stop_takes_ms: unit.stop_takes_ms,
            ..Unit::default()
        });
        Self {
            servers: servers.collect(),
            shares: shares.collect(),
            units: units.collect(),
            held: BTreeMap::new(),
            bus_lost: None,
        }
    }

    /// Is the server of this share fenced at an address, on behalf of whichever share?
    pub fn is_fenced(&self, share: usize, address: u32) -> bool {
        self.server_of(share).fenced_for.values().any(|fenced| *fenced == address)
    }

    /// Are this share's logins refused in the server's place?
    pub fn is_sunk(&self, share: usize) -> bool {
        self.server_of(share).sunk_for.contains(&share)
    }

    /// Does this share want its server fenced?
    pub fn wants_fence(&self, share: usize) -> bool {
        self.server_of(share).fenced_for.contains_key(&share)
    }

    fn server_of(&self, share: usize) -> &Server {
        &self.servers[self.shares[share].server]
    }

    /// Where the kernel's connections of a share lead to.
    fn address_of_clone(&self, share: usize) -> u32 {
        let place = &self.shares[share];
        if place.clone { place.clone_of.0 } else { self.server_of(share).known }
    }

    /// It gets another first address, which always makes a difference; what is at the old one from now on never answers.
    pub fn server_moves(&mut self, server: usize) -> bool {
        let old = self.servers[server].address;
        self.servers[server].address += 1;
        for share in self.shares.iter_mut().filter(|share| share.server == server && share.clone_of.0 == old) {
            share.lose_connection(Connection::Stale);
        }
        true
    }

    /// Nothing answers any more at one of its addresses; `false` if that is so already, or there is no such.
    pub fn address_dies(&mut self, server: usize, second: bool) -> bool {
        let server = &mut self.servers[server];
        let address = if second { server.second } else { Some(server.address) };
        address.is_some_and(|address| server.dead.insert(address))
    }

    /// All of them answer again.
    pub fn addresses_back(&mut self, server: usize) -> bool {
        let were_dead = !std::mem::take(&mut self.servers[server].dead).is_empty();
        self.settle_connections(server);
        were_dead
    }

    /// A server changes.
    pub fn set_server(&mut self, server: usize, is: ServerIs, connections_lost: bool) {
        self.servers[server].is = is;
        for share in self.shares.iter_mut().filter(|share| share.server == server) {
            if connections_lost && share.connection == Connection::Fresh {
                share.lose_connection(Connection::Stale);
            }
        }
        self.settle_connections(server);
    }

    /// This host can no longer reach a server, or can again.
    pub fn set_local(&mut self, server: usize, trouble: Option<LocalTrouble>) {
        self.servers[server].local = trouble;
        self.settle_connections(server);
    }

    /// A reconnecting kernel gets somewhere as soon as somebody accepts: also into a server that never answers.
    fn settle_connections(&mut self, server: usize) {
        let at = &self.servers[server];
        for share in self.shares.iter_mut().filter(|share| share.server == server) {
            let address = share.clone_of.0;
            let fenced = at.fenced_for.values().any(|fenced| *fenced == address);
            if fenced || share.connection != Connection::Reconnecting {
                continue;
            }
            match at.seen_at(address) {
                ServerIs::Up | ServerIs::Slow => share.connection = Connection::Fresh,
                ServerIs::Hung => share.connection = Connection::Stale,
                ServerIs::Silent | ServerIs::Refusing | ServerIs::Stranger => {}
            }
        }
    }

    /// Nobody refuses logins any more.
    pub fn close_sinkholes(&mut self) {
        self.servers.iter_mut().for_each(|server| server.sunk_for.clear());
    }

    /// Everything of the kernel's, and what lies in /run, is gone.
    pub fn reboot(&mut self) {
        for server in &mut self.servers {
            server.fenced_for.clear();
        }
        self.close_sinkholes();
        for share in &mut self.shares {
            (share.barrier, share.clone, share.ours, share.foreign) = (false, false, false, false);
            share.lost = false;
            share.connection = Connection::Fresh;
            share.disk = Memory::default();
        }
        self.held.retain(|_, unit| unit.held.is_stopped());
        self.bus_lost = None;
    }

    /// Does what an operation of a share asks.
    pub fn perform(&mut self, share: usize, step: &Step, started: BootInstant) -> Outcome {
        let server = self.shares[share].server;
        let address = self.address_of_clone(share);
        let fenced = self.is_fenced(share, address);
        let Server { known, .. } = self.servers[server];
        let answers = self.servers[server].seen_at(address).answers();
        let place = &mut self.shares[share];
        match step {
            Step::Survey => return ends(Done::Survey(place.survey(known))),
            Step::LayBarrier => place.barrier = true,
            Step::Mount => return self.mount(share, true),
            Step::TryLogin => return self.mount(share, false),
            Step::Verify => return self.ask(share),
            Step::Flush => return self.flush(share),
            Step::AskForLoss => return self.ask_for_loss(share),
            Step::Attach if !place.clone || place.ours || place.foreign => {
                return failed(FailureClass::Busy, "attach: nothing to attach, or no place");
            }
            // it goes onto the barrier, which is laid again if somebody took it
            Step::Attach => (place.barrier, place.ours, place.taken_off) = (true, true, false),
            // only what lies on top
            Step::Detach if place.ours && place.foreign => {
                return failed(FailureClass::Busy, "detach: somebody else's mount is in the way");
            }
            Step::Detach => place.ours = false,
            Step::RaiseFence => {
                self.servers[server].fenced_for.insert(share, address);
            }
            Step::RaiseSinkhole => {
                self.servers[server].sunk_for.insert(share);
            }
            Step::LiftFence => {
                self.servers[server].fenced_for.remove(&share);
                self.servers[server].sunk_for.remove(&share);
                self.settle_connections(server);
            }
            Step::DestroySockets { since } => self.destroy_sockets(server, address, *since, started),
            Step::ShutDown => {} // makes faster what follows
            Step::Release | Step::DropClone if !fenced && !answers => return Outcome::Waits,
            Step::Release | Step::DropClone => {
                (place.clone, place.lost) = (false, false);
                place.silent.take_if(|cure| *cure != Cure::OnlyTime);
                // who has files open is refused until the fence is lifted
                if *step == Step::DropClone {
                    self.servers[server].sunk_for.remove(&share);
                }
            }
        }
        ends(Done::Plainly)
    }

    /// Those of all shares of a server to an address, unless another share did so since.
    fn destroy_sockets(&mut self, server: usize, address: u32, since: BootInstant, started: BootInstant) {
        let destroyed_at = &mut self.servers[server].destroyed_at;
        if destroyed_at.get(&address).is_some_and(|at| *at >= since) {
            return;
        }
        destroyed_at.insert(address, started);
        for share in self.shares.iter_mut().filter(|share| share.server == server && share.clone_of.0 == address) {
            share.lose_connection(Connection::Reconnecting);
            share.silent.take_if(|cure| *cure == Cure::NewConnection);
        }
        self.settle_connections(server);
    }

    fn mount(&mut self, share: usize, stays: bool) -> Outcome {
        let address = self.server_of(share).known;
        let server = self.server_of(share).seen_at(address);
        if self.is_sunk(share) {
            return failed(FailureClass::Credentials, "mount: the sinkhole refused the login");
        }
        if self.is_fenced(share, address) || server == ServerIs::Refusing {
            return failed(FailureClass::Transient, "mount: connection refused");
        }
        if !server.answers() || self.shares[share].silent == Some(Cure::OnlyTime) {
            return Outcome::Waits;
        }
        let place = &mut self.shares[share];
        if let Some(class) = place.refuses {
            return failed(class, "mount: refused by the server");
        }
        if !stays {
            return ends(Done::Plainly);
        }
        (place.clone, place.logged_in) = (true, true);
        place.clone_of = (address, place.source);
        place.connection = Connection::Fresh;
        ends(Done::Plainly)
    }

    /// syncfs ends with what is in flight, and tells of a loss once.
    fn ask_for_loss(&mut self, share: usize) -> Outcome {
        match self.ask(share) {
            Outcome::Ends(_) if std::mem::take(&mut self.shares[share].lost) => {
                ends(Done::Loss(Some("input/output error".into())))
            }
            Outcome::Ends(_) if self.shares[share].clone => ends(Done::Loss(None)),
            outcome => outcome,
        }
    }

    /// The same call, as it is used to write back: of an earlier loss it tells by failing.
    fn flush(&mut self, share: usize) -> Outcome {
        match self.ask(share) {
            Outcome::Ends(_) if std::mem::take(&mut self.shares[share].lost) => {
                failed(FailureClass::Transient, "flush: input/output error")
            }
            outcome => outcome,
        }
    }

    /// An uncached request; also what syncfs needs.
    fn ask(&mut self, share: usize) -> Outcome {
        let address = self.address_of_clone(share);
        let (fenced, answers) = (self.is_fenced(share, address), self.server_of(share).seen_at(address).answers());
        let place = &mut self.shares[share];
        if !place.clone {
            return failed(FailureClass::Transient, "nothing mounted");
        }
        if fenced {
            place.lose_connection(Connection::Reconnecting);
            return failed(FailureClass::Transient, "host is down");
        }
        if !answers || place.silent.is_some() || place.connection != Connection::Fresh {
            return Outcome::Waits;
        }
        if !place.logged_in && place.refuses == Some(FailureClass::Credentials) {
            return Outcome::Ends(Err(Failure { errno: Some(EHOSTDOWN), ..Failure::transient("no session") }));
        }
        place.logged_in = true;
        ends(Done::Plainly)
    }
}

impl Place {
    /// A session ends with its connection, and is set up anew on the next.
    fn lose_connection(&mut self, connection: Connection) {
        (self.connection, self.logged_in) = (connection, false);
    }

    fn survey(&self, address: u32) -> Survey {
        let mismatch = match self.clone_of {
            _ if !self.clone => None,
            (of_clone, _) if of_clone != address => Some(Mismatch::Address),
            (_, of_clone) => (of_clone != self.source).then_some(Mismatch::Source),
        };
        let (attached, memory) = (self.attached(), self.disk.clone());
        Survey { clone: self.clone, mismatch, barrier: self.barrier, attached, memory }
    }
}

fn ends(done: Done) -> Outcome {
    Outcome::Ends(Ok(done))
}

/// An operation that failed.
pub fn failed(class: FailureClass, message: &str) -> Outcome {
    Outcome::Ends(Err(Failure { class, message: message.to_owned(), errno: None, hint: None }))
}
