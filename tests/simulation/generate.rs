//! From a seed to a schedule.

use nasmount::share::OnSleep;
use nasmount::share::consumers::{AfterHold, OnOutage};
use nasmount::share::detector::LocalTrouble;
use nasmount::share::failure::FailureClass;

use crate::schedule::{
    Change, Cure, Fault, Need, Schedule, ServerIs, ServerSetup, Setup, ShareSetup, Typed, UnitSetup,
};

const OPERATIONS: [&str; 18] = [
    "survey",
    "lay barrier",
    "mount",
    "verify",
    "attach",
    "detach",
    "raise fence",
    "raise sinkhole",
    "lift fence",
    "destroy sockets",
    "flush",
    "release",
    "inspect",
    "pause",
    "stop",
    "kill",
    "continue",
    "start",
];

impl Schedule {
    /// The schedule of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut setup = Setup::generate(&mut rng);
        setup.servers.iter_mut().for_each(|server| server.only_on = seed.is_multiple_of(2));
        let mut at = 0;
        let mut faults = Vec::new();
        for _ in 0..rng.usize(1..=10) {
            at += match rng.u8(0..4) {
                0 => rng.u64(0..300),
                1 => rng.u64(0..5_000),
                2 => rng.u64(0..30_000),
                _ => rng.u64(0..200_000),
            };
            outage_or_other(&mut rng, &setup, &mut at, &mut faults);
        }
        let dies_at_input = (rng.u8(0..3) == 0).then(|| rng.u64(1..200));
        Self { seed, setup, faults, dies_at_input }
    }
}

impl Setup {
    fn generate(rng: &mut fastrand::Rng) -> Self {
        let servers: Vec<ServerSetup> = (0..rng.usize(1..=2))
            .map(|_| ServerSetup {
                interval_ms: pick(rng, &[1_000, 2_000, 5_000]),
                dead_after: rng.u32(1..=4),
                alive_after: rng.u32(1..=3),
                two_addresses: rng.bool(),
                only_on: false,
            })
            .collect();
        let shares: Vec<ShareSetup> = (0..rng.usize(1..=3))
            .map(|_| ShareSetup {
                server: rng.usize(0..servers.len()),
                patience_ms: pick(rng, &[0, 5_000, 30_000, 120_000]),
                hold_for_ms: pick(rng, &[Some(0), Some(20_000), Some(60_000), Some(300_000), None]),
                mounted: rng.bool(),
                on_sleep: pick(rng, &[OnSleep::Hold, OnSleep::Hold, OnSleep::None]),
            })
            .collect();
        let units = (0..rng.usize(0..=3)).map(|_| unit(rng, shares.len())).collect();
        Self { servers, shares, units }
    }
}

fn unit(rng: &mut fastrand::Rng, shares: usize) -> UnitSetup {
    let mut needed: Vec<usize> = (0..shares).filter(|_| rng.bool()).collect();
    if needed.is_empty() {
        needed.push(rng.usize(0..shares));
    }
    let need = |rng: &mut fastrand::Rng, share| {
        let (on_outage, after_hold) = policy(rng);
        Need { share, on_outage, after_hold }
    };
    UnitSetup {
        running: rng.u8(0..5) > 0,
        enabled: rng.bool(),
        configured: rng.u8(0..10) > 0,
        order: rng.i32(0..3),
        time_limit_ms: pick(rng, &[5_000, 30_000, 90_000]),
        start_takes_ms: pick(rng, &[10, 1_000, 20_000]),
        stop_takes_ms: pick(rng, &[100, 2_000, 30_000, 85_000, 150_000]),
        needs: needed.into_iter().map(|share| need(rng, share)).collect(),
    }
}

fn policy(rng: &mut fastrand::Rng) -> (OnOutage, AfterHold) {
    (
        pick(rng, &[OnOutage::Pause, OnOutage::Pause, OnOutage::Stop, OnOutage::None]),
        pick(rng, &[AfterHold::Stop, AfterHold::Stop, AfterHold::Kill, AfterHold::None]),
    )
}

fn pick<T: Clone>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())].clone()
}

/// Half of what happens is a server going away and coming back; the rest is everything else.
fn outage_or_other(rng: &mut fastrand::Rng, setup: &Setup, at: &mut u64, faults: &mut Vec<(u64, Fault)>) {
    match rng.u8(0..17) {
        0..=6 => outage(rng, setup, at, faults),
        7 => flapping(rng, setup, at, faults),
        8 => sleep(rng, setup, at, faults),
        _ => {
            let fault = other(rng, setup);
            let undone = undoes(&fault).filter(|_| rng.u8(0..4) > 0);
            faults.push((*at, fault));
            if let Some(undone) = undone {
                *at += pick(rng, &[200, 3_000, 20_000, 100_000]);
                faults.push((*at, undone));
            }
        }
    }
}

/// What makes good what this did.
fn undoes(fault: &Fault) -> Option<Fault> {
    let typed = |share: &usize, typed| Some(Fault::Command { share: *share, typed });
    match fault {
        Fault::ShareSilent { share, .. } => Some(Fault::ShareAnswers { share: *share }),
        Fault::MountsRefused { share, .. } => Some(Fault::MountsAccepted { share: *share }),
        Fault::AdminStops { unit } => Some(Fault::AdminStarts { unit: *unit }),
        Fault::BusLost { .. } => Some(Fault::BusBack),
        Fault::ForeignMount { share } => Some(Fault::ForeignGone { share: *share }),
        Fault::Local { server, trouble: Some(_) } => Some(Fault::Local { server: *server, trouble: None }),
        Fault::AddressDies { server, .. } => Some(Fault::AddressesBack { server: *server }),
        Fault::ConfigurationLoaded { change: Change::UnitGone { unit } } => {
            Some(Fault::ConfigurationLoaded { change: Change::UnitAdded { unit: *unit } })
        }
        Fault::Command { share, typed: Typed::Unmount } => typed(share, Typed::Mount),
        Fault::Command { share, typed: Typed::Hold } => typed(share, Typed::Release),
        Fault::Command { share, typed: Typed::MaintenanceOn { .. } } => typed(share, Typed::MaintenanceOff),
        _ => None,
    }
}

fn outage(rng: &mut fastrand::Rng, setup: &Setup, at: &mut u64, faults: &mut Vec<(u64, Fault)>) {
    let server = rng.usize(0..setup.servers.len());
    let kinds = [
        ServerIs::Silent,
        ServerIs::Silent,
        ServerIs::Silent,
        ServerIs::Refusing,
        ServerIs::Refusing,
        ServerIs::Hung,
        ServerIs::Hung,
        ServerIs::Slow,
        ServerIs::Stranger,
    ];
    let is = pick(rng, &kinds);
    let always = matches!(is, ServerIs::Refusing | ServerIs::Stranger);
    let connections_lost = (always || rng.bool()) && is != ServerIs::Slow;
    faults.push((*at, Fault::Server { server, is, connections_lost }));
    for _ in 0..rng.usize(0..3) {
        *at += rng.u64(0..20_000);
        faults.push((*at, other(rng, setup)));
    }
    *at += pick(rng, &[500, 3_000, 20_000, 100_000, 400_000]);
    let is = if rng.u8(0..8) == 0 { ServerIs::Slow } else { ServerIs::Up };
    faults.push((*at, Fault::Server { server, is, connections_lost: rng.bool() }));
}

/// A sleep as logind announces it; it may not come, nobody may say that it is over, and things may have changed meanwhile.
fn sleep(rng: &mut fastrand::Rng, setup: &Setup, at: &mut u64, faults: &mut Vec<(u64, Fault)>) {
    faults.push((*at, Fault::SleepAnnounced));
    *at += rng.u64(0..6_000);
    for _ in 0..rng.usize(0..2) {
        faults.push((*at, other(rng, setup)));
        *at += rng.u64(0..6_000);
    }
    if rng.u8(0..4) > 0 {
        faults.push((*at, Fault::Suspend { for_ms: rng.u64(1_000..600_000) }));
        if rng.bool() {
            let server = rng.usize(0..setup.servers.len());
            faults.push((*at, Fault::Server { server, is: ServerIs::Silent, connections_lost: rng.bool() }));
        }
        *at += rng.u64(0..20_000);
    }
    if rng.u8(0..4) > 0 {
        faults.push((*at, Fault::SleepOver));
    }
}

/// A server that comes and goes.
fn flapping(rng: &mut fastrand::Rng, setup: &Setup, at: &mut u64, faults: &mut Vec<(u64, Fault)>) {
    let server = rng.usize(0..setup.servers.len());
    for _ in 0..rng.usize(2..6) {
        faults.push((*at, Fault::Server { server, is: ServerIs::Refusing, connections_lost: true }));
        *at += rng.u64(200..15_000);
        faults.push((*at, Fault::Server { server, is: ServerIs::Up, connections_lost: rng.bool() }));
        *at += rng.u64(200..15_000);
    }
}

fn other(rng: &mut fastrand::Rng, setup: &Setup) -> Fault {
    let share = rng.usize(0..setup.shares.len());
    let unit = rng.usize(0..setup.units.len().max(1));
    let server = rng.usize(0..setup.servers.len());
    match rng.u8(0..51) {
        0 => Fault::ShareSilent { share, cure: pick(rng, &[Cure::NewConnection, Cure::NewMount, Cure::OnlyTime]) },
        1 => Fault::ShareAnswers { share },
        2 if rng.bool() => Fault::MountsRefused {
            share,
            class: pick(
                rng,
                &[
                    FailureClass::Transient,
                    FailureClass::Credentials,
                    FailureClass::Configuration,
                    FailureClass::Missing,
                ],
            ),
        },
        2 => Fault::MountsAccepted { share },
        3..=5 => Fault::DaemonDies { down_for_ms: pick(rng, &[50, 1_000, 30_000]) },
        6 => Fault::Reboot { down_for_ms: pick(rng, &[1_000, 20_000]) },
        7 | 8 => Fault::AdminStops { unit },
        9 => Fault::AdminStarts { unit },
        10 => Fault::UnitKilled { unit },
        11 => Fault::BusLost { calls_hang: rng.bool() },
        12 => Fault::BusBack,
        13..=17 => Fault::NextHangs {
            operation: pick(rng, &OPERATIONS).to_owned(),
            for_ms: pick(rng, &[300, 4_000, 12_000, 50_000, 200_000]),
            killable: rng.bool(),
        },
        18..=20 => Fault::NextFails {
            operation: pick(rng, &OPERATIONS).to_owned(),
            class: pick(rng, &[FailureClass::Transient, FailureClass::Transient, FailureClass::Configuration]),
            times: rng.u32(1..6),
        },
        21 => Fault::ForeignMount { share },
        22 => Fault::ForeignGone { share },
        23 => Fault::TakenOff { share },
        24..=30 => Fault::Command { share, typed: typed(rng) },
        31..=34 => Fault::ConfigurationLoaded { change: change(rng, share, unit) },
        35 => Fault::NetworkChanged,
        38..=40 => Fault::Local { server, trouble: trouble(rng, setup.servers[server].only_on) },
        41 => Fault::Hint { server },
        42 => Fault::TrustStranger { server },
        43 => Fault::BarrierTaken { share },
        44 => Fault::ServerMoves { server },
        45 => Fault::SourceEdited { share, down_for_ms: pick(rng, &[50, 1_000, 30_000]) },
        46 => Fault::Shutdown {
            lasts_ms: pick(rng, &[2_000, 20_000, 90_000, 90_000]),
            down_for_ms: pick(rng, &[1_000, 20_000]),
        },
        47..=49 => Fault::AddressDies { server, second: rng.u8(0..3) == 0 },
        36 | 37 => Fault::Suspend { for_ms: rng.u64(1_000..600_000) },
        _ => Fault::SpuriousTimeout,
    }
}

fn trouble(rng: &mut fastrand::Rng, only_on: bool) -> Option<LocalTrouble> {
    use LocalTrouble::{NoAddress, NoLink, NoRoute, OffNetwork};
    match only_on {
        true => pick(rng, &[Some(NoLink), Some(NoRoute), Some(OffNetwork), None]),
        false => pick(rng, &[Some(NoLink), Some(NoRoute), Some(NoAddress), None]),
    }
}

fn typed(rng: &mut fastrand::Rng) -> Typed {
    match rng.u8(0..8) {
        0 => Typed::Mount,
        1 => Typed::Unmount,
        2 => Typed::Remount,
        3 => Typed::MaintenanceOn { for_ms: pick(rng, &[None, Some(1_000), Some(60_000), Some(600_000)]) },
        4 => Typed::MaintenanceOff,
        5 | 6 => Typed::Hold,
        _ => Typed::Release,
    }
}

fn change(rng: &mut fastrand::Rng, share: usize, unit: usize) -> Change {
    match rng.u8(0..5) {
        0 => Change::Patience { share, ms: pick(rng, &[0, 5_000, 120_000]) },
        1 => Change::Hold { share, ms: pick(rng, &[Some(0), Some(20_000), Some(300_000), None]) },
        2 => {
            let (on_outage, after_hold) = policy(rng);
            Change::Policy { unit, on_outage, after_hold }
        }
        3 => Change::UnitGone { unit },
        _ => Change::UnitAdded { unit },
    }
}
