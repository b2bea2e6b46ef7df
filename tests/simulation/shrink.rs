//! From a schedule that breaks a rule to a smaller one that breaks the same.

use crate::schedule::{Change, Fault, Schedule};

/// Drops faults, the crash, units and shares, one at a time, while `fails` still holds.
pub fn shrink(schedule: &Schedule, fails: impl Fn(&Schedule) -> bool) -> Schedule {
    let mut smallest = schedule.clone();
    loop {
        let before = smallest.clone();
        let mut index = 0;
        while index < smallest.faults.len() {
            let mut smaller = smallest.clone();
            smaller.faults.remove(index);
            index += usize::from(!take(&mut smallest, smaller, &fails));
        }
        let smaller = Schedule { dies_at_input: None, ..smallest.clone() };
        take(&mut smallest, smaller, &fails);
        for unit in (0..smallest.setup.units.len()).rev() {
            let smaller = without_unit(&smallest, unit);
            take(&mut smallest, smaller, &fails);
        }
        for share in (0..smallest.setup.shares.len()).rev() {
            if smallest.setup.shares.len() > 1 {
                let smaller = without_share(&smallest, share);
                take(&mut smallest, smaller, &fails);
            }
        }
        if smallest == before {
            return smallest;
        }
    }
}

fn take(smallest: &mut Schedule, smaller: Schedule, fails: &impl Fn(&Schedule) -> bool) -> bool {
    let taken = smaller != *smallest && fails(&smaller);
    if taken {
        *smallest = smaller;
    }
    taken
}

fn without_unit(schedule: &Schedule, gone: usize) -> Schedule {
    let mut smaller = schedule.clone();
    smaller.setup.units.remove(gone);
    smaller.faults.retain_mut(|(_, fault)| keeps(fault_unit(fault), gone));
    smaller
}

fn without_share(schedule: &Schedule, gone: usize) -> Schedule {
    let mut smaller = schedule.clone();
    smaller.setup.shares.remove(gone);
    for unit in &mut smaller.setup.units {
        unit.needs.retain_mut(|need| keeps(Some(&mut need.share), gone));
    }
    while let Some(unit) = smaller.setup.units.iter().position(|unit| unit.needs.is_empty()) {
        smaller = without_unit(&smaller, unit);
    }
    smaller.faults.retain_mut(|(_, fault)| keeps(fault_share(fault), gone));
    smaller
}

/// Moves an index down over the one that is gone; `false` if it is that.
fn keeps(index: Option<&mut usize>, gone: usize) -> bool {
    match index {
        Some(index) if *index == gone => false,
        Some(index) => {
            *index -= usize::from(*index > gone);
            true
        }
        None => true,
    }
}

fn fault_unit(fault: &mut Fault) -> Option<&mut usize> {
    match fault {
        Fault::AdminStops { unit } | Fault::AdminStarts { unit } | Fault::UnitKilled { unit } => Some(unit),
        Fault::ConfigurationLoaded {
            change: Change::Policy { unit, .. } | Change::UnitGone { unit } | Change::UnitAdded { unit },
        } => Some(unit),
        _ => None,
    }
}

fn fault_share(fault: &mut Fault) -> Option<&mut usize> {
    match fault {
        Fault::ShareSilent { share, .. }
        | Fault::ShareAnswers { share }
        | Fault::MountsRefused { share, .. }
        | Fault::MountsAccepted { share }
        | Fault::ForeignMount { share }
        | Fault::ForeignGone { share }
        | Fault::TakenOff { share }
        | Fault::BarrierTaken { share }
        | Fault::SourceEdited { share, .. }
        | Fault::Command { share, .. } => Some(share),
        Fault::ConfigurationLoaded { change: Change::Patience { share, .. } | Change::Hold { share, .. } } => {
            Some(share)
        }
        _ => None,
    }
}
