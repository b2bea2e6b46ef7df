//! What goes wrong in the world, and how all of it is put right at the end.

use std::time::Duration;

use nasmount::share::command::{HoldReason, Maintenance};
use nasmount::share::consumers::UnitEvent;
use nasmount::share::detector::{LocalTrouble, Trust};
use nasmount::share::{Command, Event, Input, State};

use crate::invariants::{self, Check, Violation};
use crate::planted::Planted;
use crate::schedule::{Change, Fault, ServerIs, Typed};
use crate::world::{Happening, World};

impl World {
    /// Something goes wrong; `false` if that makes no difference here.
    pub fn fault(&mut self, fault: Fault) -> Result<bool, Violation> {
        self.note(|| format!("FAULT {fault:?}"));
        if matches!(fault, Fault::Reboot { .. }) {
            invariants::at_the_end_of_a_shutdown(self)?;
        }
        self.watch.trouble(self.now);
        Ok(match fault {
            Fault::Server { server, is, connections_lost } => {
                let changed = is != self.host.servers[server].is || connections_lost;
                self.host.set_server(server, is, connections_lost);
                changed
            }
            Fault::ShareSilent { share, cure } => self.host.shares[share].silent.replace(cure) != Some(cure),
            Fault::ShareAnswers { share } => self.host.shares[share].silent.take().is_some(),
            Fault::MountsRefused { share, class } => self.host.shares[share].refuses.replace(class) != Some(class),
            Fault::MountsAccepted { share } => self.host.shares[share].refuses.take().is_some(),
            Fault::DaemonDies { down_for_ms } => self.daemon_dies(down_for_ms)?,
            Fault::Reboot { down_for_ms } => self.reboot(Duration::from_millis(down_for_ms)),
            Fault::Shutdown { lasts_ms, down_for_ms } => self.shut_down(lasts_ms, down_for_ms)?,
            Fault::AdminStops { unit } => self.admin_stops(unit),
            Fault::AdminStarts { unit } => self.admin_starts(unit),
            Fault::UnitKilled { unit } => self.unit_killed(unit),
            Fault::BusLost { calls_hang } => {
                self.lose_bus(calls_hang);
                true
            }
            Fault::BusBack => {
                let lost = self.host.bus_lost.is_some();
                self.find_bus()?;
                lost
            }
            // counted when it has hung
            Fault::NextHangs { operation, for_ms, killable } => {
                self.hang_next.push((operation, for_ms, killable));
                false
            }
            // counted when it has failed
            Fault::NextFails { operation, class, times } => {
                self.fail_next.push((operation, class, times));
                false
            }
            Fault::ForeignMount { share } => self.put_foreign(share, true),
            Fault::ForeignGone { share } => self.put_foreign(share, false),
            Fault::TakenOff { share } => self.take_off(share),
            Fault::BarrierTaken { share } => self.take_barrier(share),
            Fault::ServerMoves { server } => self.host.server_moves(server),
            Fault::AddressDies { server, second } => self.host.address_dies(server, second),
            Fault::AddressesBack { server } => self.host.addresses_back(server),
            Fault::SourceEdited { share, down_for_ms } => {
                self.host.shares[share].source += 1;
                self.daemon_dies(down_for_ms)?;
                true
            }
            Fault::Command { share, typed } => {
                let command = self.command_of(typed);
                self.command(share, command)?
            }
            Fault::ConfigurationLoaded { change } => self.change(change)?,
            Fault::NetworkChanged => self.network_changed(),
            Fault::Local { server, trouble } => self.set_local(server, trouble)?,
            Fault::Hint { server } => self.hint(server)?,
            Fault::TrustStranger { server } => self.trust_stranger(server),
            Fault::Suspend { for_ms } => self.suspend(for_ms),
            Fault::SleepAnnounced => self.announce_sleep()?,
            Fault::SleepOver => self.sleep_is_over()?,
            Fault::SpuriousTimeout => self.time_out_too_early()?,
        })
    }

    fn daemon_dies(&mut self, down_for_ms: u64) -> Result<bool, Violation> {
        let runs = self.daemon.is_some();
        if runs {
            self.kill_daemon(Duration::from_millis(down_for_ms))?;
        }
        Ok(runs)
    }

    fn time_out_too_early(&mut self) -> Result<bool, Violation> {
        for share in 0..self.setup.shares.len() {
            self.feed(share, Some(Input::Timeout))?;
        }
        self.feed_units(None)?;
        Ok(true)
    }

    fn suspend(&mut self, for_ms: u64) -> bool {
        self.asleep = Some((self.now, self.now + Duration::from_millis(for_ms)));
        true
    }

    fn announce_sleep(&mut self) -> Result<bool, Violation> {
        if self.sleep_announced.is_some() || self.shuts_down.is_some() {
            return Ok(false);
        }
        self.sleep_announced = Some(self.now);
        self.tell_of_sleep()?;
        Ok(true)
    }

    /// What is in flight at a server that is dead is given up.
    pub fn tell_of_sleep(&mut self) -> Check {
        for share in 0..self.setup.shares.len() {
            self.watch.shares[share].patience = Duration::ZERO;
            self.share_input(share, Some(Input::Event(Event::SleepBegan)))?;
        }
        self.agree()
    }

    fn sleep_is_over(&mut self) -> Result<bool, Violation> {
        if self.sleep_announced.take().is_none() {
            return Ok(false);
        }
        self.tell_of_waking(Duration::ZERO)?;
        Ok(true)
    }

    /// systemd unmounts what is on its path, after those who use it have been stopped.
    fn shut_down(&mut self, lasts_ms: u64, down_for_ms: u64) -> Result<bool, Violation> {
        if self.daemon.is_none() || self.shuts_down.is_some() {
            return Ok(false);
        }
        self.shuts_down = Some(self.now);
        self.after(Duration::from_millis(lasts_ms), Happening::Fault(Fault::Reboot { down_for_ms }));
        for share in 0..self.setup.shares.len() {
            let soon = self.latency(10, 2_000);
            self.after(soon, Happening::Fault(Fault::TakenOff { share }));
            if self.planted != Some(Planted::ShutdownNotTold) {
                self.watch.shares[share].maintenance = None;
                self.share_input(share, Some(Input::Event(Event::ShutdownBegan)))?;
            }
        }
        self.agree()?;
        Ok(true)
    }

    fn reboot(&mut self, down_for: Duration) -> bool {
        let ran = self.daemon.take().is_some() || self.shuts_down.is_some();
        (self.shuts_down, self.sleep_announced) = (None, None);
        self.workers.clear();
        self.mount_queue.clear();
        self.jobs.clear();
        self.host.reboot();
        self.watch.rebooted();
        if self.planted == Some(Planted::StoppedForgottenAtReboot) {
            self.host.held.clear();
        }
        for (index, unit) in self.host.units.iter_mut().enumerate() {
            let name = crate::schedule::unit_name(index);
            let held = self.host.held.contains_key(name);
            unit.frozen = false;
            unit.job = None;
            (unit.running, unit.ran) = (false, false);
            if unit.enabled {
                unit.starts();
            }
            unit.stopped_by_us &= !unit.enabled;
            unit.admin_stopped = !unit.enabled && !unit.stopped_by_us && !held;
        }
        self.generation += 1;
        if ran {
            self.after(down_for, Happening::DaemonStarts);
        }
        ran // else it is on its way up already
    }

    fn put_foreign(&mut self, share: usize, is_there: bool) -> bool {
        let changed = std::mem::replace(&mut self.host.shares[share].foreign, is_there) != is_there;
        if changed {
            self.mount_table_changed(share);
        }
        changed
    }

    /// umount, or umount -l, by somebody else.
    fn take_off(&mut self, share: usize) -> bool {
        let place = &mut self.host.shares[share];
        let taken = place.is_open();
        if taken {
            place.ours = false;
            place.taken_off = true;
            self.mount_table_changed(share);
        }
        taken
    }

    /// The same of the barrier.
    fn take_barrier(&mut self, share: usize) -> bool {
        let place = &mut self.host.shares[share];
        let taken = place.barrier && !place.ours && !place.foreign;
        if taken {
            place.barrier = false;
            self.mount_table_changed(share);
        }
        taken
    }

    fn network_changed(&mut self) -> bool {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return false };
        daemon.detectors.iter_mut().for_each(|detector| detector.handle_change_of_network(now));
        true
    }

    fn set_local(&mut self, server: usize, trouble: Option<LocalTrouble>) -> Result<bool, Violation> {
        let changed = self.host.servers[server].local != trouble;
        self.host.set_local(server, trouble);
        self.look_at_the_host(server)?;
        Ok(changed)
    }

    /// The shares hear of it after the next answer; here at any moment at which they may.
    fn hint(&mut self, server: usize) -> Result<bool, Violation> {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return Ok(false) };
        let before = daemon.detectors[server].poll_probe();
        daemon.detectors[server].handle_hint(now);
        let hurried = daemon.detectors[server].poll_probe() != before;
        let trusted = daemon.detectors[server].trust() == Trust::Trusted;
        for share in self.setup.shares_on(server).filter(|_| trusted).collect::<Vec<_>>() {
            self.share_input(share, Some(Input::Event(Event::ConnectionClosed)))?;
        }
        Ok(hurried)
    }

    fn trust_stranger(&mut self, server: usize) -> bool {
        let now = self.now;
        let Some(daemon) = &mut self.daemon else { return false };
        let detector = &mut daemon.detectors[server];
        let is_one = detector.stranger().is_some();
        detector.trust_stranger(now);
        self.host.servers[server].pinned = detector.identity();
        is_one
    }

    fn command_of(&self, typed: Typed) -> Command {
        match typed {
            Typed::Mount => Command::Mount,
            Typed::Unmount => Command::Unmount,
            Typed::Remount => Command::Remount,
            Typed::MaintenanceOn { for_ms } => {
                let until = for_ms.map(|ms| self.now + Duration::from_millis(ms));
                Command::StartMaintenance(Maintenance { until })
            }
            Typed::MaintenanceOff => Command::EndMaintenance,
            Typed::Hold => Command::Hold,
            Typed::Release => Command::Release,
        }
    }

    /// The configuration says something else, and the daemon reads it.
    fn change(&mut self, change: Change) -> Result<bool, Violation> {
        let before = self.setup.clone();
        match change {
            Change::Patience { share, ms } => self.setup.shares[share].patience_ms = ms,
            Change::Hold { share, ms } => self.setup.shares[share].hold_for_ms = ms,
            Change::Policy { unit, on_outage, after_hold } => {
                for need in self.setup.units.get_mut(unit).into_iter().flat_map(|unit| &mut unit.needs) {
                    (need.on_outage, need.after_hold) = (on_outage, after_hold);
                }
            }
            Change::UnitGone { unit } | Change::UnitAdded { unit } => {
                if let Some(unit) = self.setup.units.get_mut(unit) {
                    unit.configured = matches!(change, Change::UnitAdded { .. });
                }
            }
        }
        if self.setup == before {
            return Ok(false);
        }
        for share in 0..self.setup.shares.len() {
            let patience = Duration::from_millis(self.setup.shares[share].patience_ms);
            self.watch.shares[share].reconfigured(patience);
            let spec = self.setup.share_spec(share);
            self.share_input(share, Some(Input::Event(Event::ConfigurationLoaded { spec })))?;
        }
        if self.daemon.is_some() {
            self.units_input(Some(UnitEvent::ConfigurationLoaded { units: self.setup.unit_specs() }))?;
        }
        self.agree()?;
        Ok(true)
    }

    fn admin_stops(&mut self, index: usize) -> bool {
        let runs = |unit: &crate::host::Unit| unit.running && unit.job.is_none();
        let Some(unit) = self.host.units.get_mut(index).filter(|unit| runs(unit)) else { return false };
        unit.running = false;
        unit.frozen = false;
        unit.admin_stopped = true;
        self.look_whose_to_start(index);
        self.unit_changes(index);
        true
    }

    fn admin_starts(&mut self, index: usize) -> bool {
        let Some(unit) = self.host.units.get_mut(index).filter(|unit| !unit.running) else { return false };
        unit.starts();
        unit.stopped_by_us = false;
        unit.admin_stopped = false;
        unit.started_by_admin = true;
        unit.job = None;
        self.unit_changes(index);
        true
    }

    fn unit_killed(&mut self, index: usize) -> bool {
        let runs = |unit: &crate::host::Unit| unit.running && unit.job.is_none();
        let Some(unit) = self.host.units.get_mut(index).filter(|unit| runs(unit)) else { return false };
        unit.frozen = false;
        unit.running = false;
        self.unit_changes(index);
        self.host.units[index].starts();
        self.unit_changes(index);
        true
    }

    /// The end of all faults.
    pub fn heal(&mut self) -> Check {
        self.note(|| "HEALED".into());
        self.healed_at = Some(self.now);
        self.sleep_is_over()?;
        for server in 0..self.host.servers.len() {
            self.host.set_server(server, ServerIs::Up, false);
            self.host.addresses_back(server);
            self.set_local(server, None)?;
        }
        self.hang_next.clear();
        self.fail_next.clear();
        self.watch.trouble(self.now);
        for share in 0..self.host.shares.len() {
            self.host.shares[share].silent = None;
            self.host.shares[share].refuses = None;
            self.put_foreign(share, false);
            self.after(Duration::ZERO, Happening::OperatorUndoes { share });
        }
        self.find_bus()?;
        self.nudge_waiting();
        Ok(())
    }

    /// He undoes what he did, as soon as he is not refused.
    pub fn operator_undoes(&mut self, share: usize) -> Check {
        self.after(Duration::from_secs(5), Happening::OperatorUndoes { share });
        self.trust_stranger(self.setup.shares[share].server);
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let machine = &daemon.shares[share];
        let command = if machine.maintenance().is_some() {
            Command::EndMaintenance
        } else if !machine.wanted().is_mounted() || machine.state() == State::Blocked {
            Command::Mount
        } else if machine.hold_reasons().contains(&HoldReason::Operator) {
            Command::Release
        } else {
            return Ok(());
        };
        self.command(share, command)?;
        Ok(())
    }
}
