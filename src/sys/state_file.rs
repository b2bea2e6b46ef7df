//! What must be known again after a crash, on disk: written, synced and renamed into place before it is done.
//!
//! ```text
//! /run/nasmount/share/NAME.json      what a share remembers (`share::event::Memory`),
//!                                    and how it was given up (`share::ladder`)            as long as the boot
//! /run/nasmount/paused.json          units that may be SIGSTOPped                         as long as the boot
//! /var/lib/nasmount/stopped.json     units to be started again                            also after a reboot
//! /var/lib/nasmount/barriers.json    barriers that were laid (`barrier_memory`)           also after a reboot
//! /var/lib/nasmount/generated.json   what systemd knows of dependencies on shares         also after a reboot
//! /var/lib/nasmount/server/NAME.json who a server is, and where it was ([`ServerMemory`])  also after a reboot
//! ```
//!
//! A unit that was paused and then stopped is in both lists. What is added to a list is on disk before anything is taken off
//! the other, so that a crash in between makes nasmount remember too much, never too little.
//!
//! A file that cannot be understood is set aside under the name `.broken`, with a warning, and as much of it as makes sense is
//! used: of a list every word that is the name of a consumer, of a share's memory every field that can be read, of the barriers each that can be
//! read by itself. Nobody but nasmount writes these lists, so a name in them is one that nasmount held.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::consumer::is_consumer_name;
use crate::share::consumers::{Held, HeldUnit, RunId};
use crate::share::detector::Identity;
use crate::share::event::Memory;
use crate::share::ladder::Ladder;

use super::barrier_memory::{Barriers, LaidBarrier};
use super::listen::private_directory;
use super::{clock, paths};

/// Directories in which it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFiles {
    runtime: PathBuf,
    state: PathBuf,
}

/// Units of one list, each with the run that was stopped; empty if that is not known, or if it was only paused.
pub type Units = BTreeMap<String, RunId>;

/// Which of the two lists of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitList {
    /// Units that may be SIGSTOPped; a file in memory.
    Paused,
    /// Units to be started again; a file on a disk, which may keep its writer waiting.
    Stopped,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ShareFile {
    #[serde(flatten)]
    memory: Memory,
    /// How it was given up the last time.
    release: Ladder,
    /// How long the host had slept since it booted.
    slept: Option<Duration>,
}

impl ShareFile {
    /// Nothing lasts longer because the host slept while no daemon ran.
    fn memory_after(self, slept: Duration) -> Memory {
        let asleep = self.slept.and_then(|before| clock::slept_since(before, slept)).unwrap_or_default();
        Memory { outage_since: self.memory.outage_since.map(|since| since + asleep), ..self.memory }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct ListFile {
    units: Units,
}

#[derive(Default, Serialize, Deserialize)]
struct BarriersFile {
    barriers: Barriers,
}

/// What is remembered of a server: it holds for the `host` that was configured then, and for no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMemory {
    /// Who it is, once that was known.
    pub identity: Option<Identity>,
    /// Where its name led to last.
    pub address: Option<IpAddr>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct GeneratedFile {
    files: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ServerFile {
    host: String,
    identity: Option<String>,
    address: Option<IpAddr>,
}

impl StateFiles {
    /// Those of this host.
    pub fn of_host() -> Self {
        Self::new(paths::RUNTIME_DIRECTORY, paths::STATE_DIRECTORY)
    }

    /// In these directories: one that lives as long as the boot, and one that survives it.
    pub fn new(runtime: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { runtime: runtime.into(), state: state.into() }
    }

    fn shares(&self) -> PathBuf {
        self.runtime.join("share")
    }

    fn share(&self, share: &str) -> PathBuf {
        self.shares().join(format!("{share}.json"))
    }

    fn list(&self, list: UnitList) -> PathBuf {
        match list {
            UnitList::Paused => self.runtime.join("paused.json"),
            UnitList::Stopped => self.state.join("stopped.json"),
        }
    }

    /// What an earlier daemon remembered of a share; nothing if there was nothing to remember.
    pub fn read_share(&self, share: &str) -> io::Result<Memory> {
        let file: ShareFile = read(&self.share(share), salvage_share)?;
        Ok(file.memory_after(clock::slept()))
    }

    /// How it was given up under an earlier daemon, for people to see.
    pub fn read_release(&self, share: &str) -> io::Result<Ladder> {
        let file: ShareFile = read(&self.share(share), salvage_share)?;
        Ok(file.release.inherited())
    }

    /// Replaces both.
    pub fn write_share(&self, share: &str, memory: &Memory, release: &Ladder) -> io::Result<()> {
        let nothing = *memory == Memory::default() && release.rungs().is_empty();
        let file = ShareFile { memory: memory.clone(), release: release.clone(), slept: Some(clock::slept()) };
        write(&self.share(share), (!nothing).then_some(&file))
    }

    /// Forgets the memory of every share but these.
    pub fn retain_shares(&self, configured: &BTreeSet<String>) -> io::Result<()> {
        let entries = match fs::read_dir(self.shares()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            if let Some(share) = name.to_str().and_then(|name| name.strip_suffix(".json"))
                && !configured.contains(share)
            {
                write::<Memory>(&self.share(share), None)?;
            }
        }
        Ok(())
    }

    /// What is remembered of a server that is reached as `host`; nothing if it was another one before.
    pub fn read_server(&self, server: &str, host: &str) -> io::Result<ServerMemory> {
        let file: ServerFile = read(&self.server(server), |_| ServerFile::default())?;
        if !file.host.eq_ignore_ascii_case(host) {
            if file.identity.is_some() {
                info!(server, was = file.host, "has another host: any machine that answers there is believed");
            }
            return Ok(ServerMemory::default());
        }
        let identity = file.identity.as_deref().and_then(Identity::parse);
        Ok(ServerMemory { identity, address: file.address })
    }

    /// Replaces it; on a disk, which may keep its writer waiting.
    pub fn write_server(&self, server: &str, host: &str, memory: &ServerMemory) -> io::Result<()> {
        let identity = memory.identity.map(|identity| identity.to_string());
        let file = ServerFile { host: host.to_owned(), identity, address: memory.address };
        write(&self.server(server), (*memory != ServerMemory::default()).then_some(&file))
    }

    fn server(&self, server: &str) -> PathBuf {
        self.state.join("server").join(format!("{server}.json"))
    }

    /// The barriers that were laid.
    pub fn read_barriers(&self) -> io::Result<Barriers> {
        let file: BarriersFile = read(&self.barriers(), salvage_barriers)?;
        Ok(file.barriers)
    }

    /// Replaces them; on a disk, which may keep its writer waiting.
    pub fn write_barriers(&self, barriers: &Barriers) -> io::Result<()> {
        let file = BarriersFile { barriers: barriers.clone() };
        write(&self.barriers(), (!barriers.is_empty()).then_some(&file))
    }

    fn barriers(&self) -> PathBuf {
        self.state.join("barriers.json")
    }

    /// What the generator wrote of the last configuration that was in force, by path.
    pub fn read_generated(&self) -> io::Result<BTreeMap<String, String>> {
        let file: GeneratedFile = read(&self.generated(), |_| GeneratedFile::default())?;
        Ok(file.files)
    }

    /// Replaces that; on a disk, which may keep its writer waiting.
    pub fn write_generated(&self, files: &BTreeMap<String, String>) -> io::Result<()> {
        let file = GeneratedFile { files: files.clone() };
        write(&self.generated(), (!files.is_empty()).then_some(&file))
    }

    fn generated(&self) -> PathBuf {
        self.state.join("generated.json")
    }

    /// The units of a list.
    pub fn read_units(&self, list: UnitList) -> io::Result<Units> {
        let file: ListFile = read(&self.list(list), |text| ListFile { units: salvage_units(text) })?;
        Ok(file.units)
    }

    /// Replaces a list.
    pub fn write_units(&self, list: UnitList, units: &Units) -> io::Result<()> {
        let file = ListFile { units: units.clone() };
        write(&self.list(list), (!units.is_empty()).then_some(&file))
    }
}

/// Both lists as what was done to each unit.
pub fn held(paused: &Units, stopped: &Units) -> BTreeMap<String, HeldUnit> {
    let held = |unit: &String| match (paused.contains_key(unit), stopped.contains_key(unit)) {
        (true, true) => Held::PausedAndStopped,
        (true, false) => Held::Paused,
        (false, _) => Held::Stopped,
    };
    let run = |unit: &String| stopped.get(unit).filter(|run| !run.is_empty()).cloned();
    let units = paused.keys().chain(stopped.keys());
    units.map(|unit| (unit.clone(), HeldUnit { held: held(unit), run: run(unit) })).collect()
}

/// What was done to each unit as both lists.
pub fn lists(held: &BTreeMap<String, HeldUnit>) -> (Units, Units) {
    let those = |is: fn(Held) -> bool| held.iter().filter(move |(_, unit)| is(unit.held));
    (
        those(Held::is_paused).map(|(name, _)| (name.clone(), RunId::new())).collect(),
        those(Held::is_stopped).map(|(name, unit)| (name.clone(), unit.run.clone().unwrap_or_default())).collect(),
    )
}

fn read<T: Serialize + for<'de> Deserialize<'de> + Default>(path: &Path, salvage: impl Fn(&str) -> T) -> io::Result<T> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        bytes => bytes?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(value),
        Err(error) => {
            let aside = path.with_extension("json.broken");
            warn!(file = %path.display(), %error, aside = %aside.display(), "cannot be understood, set aside; what makes sense in it is used");
            let salvaged = salvage(&String::from_utf8_lossy(&bytes));
            // a copy first: at no moment is there neither the old file nor what could be salvaged of it
            if let Err(error) = fs::write(&aside, &bytes).and_then(|()| write(path, Some(&salvaged))) {
                warn!(file = %path.display(), %error, "cannot be set aside");
            }
            Ok(salvaged)
        }
    }
}

/// Every word in quotes that is the name of a consumer.
fn salvage_units(text: &str) -> Units {
    let units = text.split('"').filter(|word| is_consumer_name(word));
    units.map(|unit| (unit.to_owned(), RunId::new())).collect()
}

/// Every barrier that can be read by itself, if the rest is JSON.
fn salvage_barriers(text: &str) -> BarriersFile {
    let file: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let barriers = file["barriers"].as_object().into_iter().flatten();
    let barrier = |laid: &serde_json::Value| serde_json::from_value::<LaidBarrier>(laid.clone()).ok();
    BarriersFile { barriers: barriers.filter_map(|(path, laid)| Some((path.into(), barrier(laid)?))).collect() }
}

/// Every field that can be read by itself.
fn salvage_share(text: &str) -> ShareFile {
    let mut memory = serde_json::Map::new();
    let fields = match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => lines(text),
    };
    for (name, value) in fields {
        let alone = serde_json::Map::from_iter([(name.clone(), value.clone())]);
        if serde_json::from_value::<ShareFile>(alone.into()).is_ok() {
            memory.insert(name, value);
        }
    }
    serde_json::from_value(memory.into()).unwrap_or_default()
}

/// The lines `"name": value` of what is written below, as far as they are whole.
fn lines(text: &str) -> serde_json::Map<String, serde_json::Value> {
    let field = |line: &str| {
        let (name, value) = line.trim().trim_end_matches(',').split_once(':')?;
        Some((serde_json::from_str(name.trim()).ok()?, serde_json::from_str(value.trim()).ok()?))
    };
    text.lines().filter_map(field).collect()
}

/// Writes a file, or removes it if there is nothing to be said; synced with its directory before this returns.
fn write<T: Serialize>(path: &Path, value: Option<&T>) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let Some(value) = value else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync(directory),
        };
    };
    private_directory(directory)?;
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(value).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::share::command::{Maintenance, Wanted};
    use crate::share::{BootInstant, OpId, State, Step};

    fn files() -> (tempfile::TempDir, StateFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = StateFiles::new(directory.path().join("run"), directory.path().join("lib"));
        (directory, files)
    }

    fn units(names: &[&str]) -> Units {
        names.iter().map(|name| ((*name).to_owned(), RunId::new())).collect()
    }

    fn memory() -> Memory {
        Memory {
            outage_since: Some(BootInstant::from_boot(std::time::Duration::from_secs(7))),
            fenced: true,
            wanted: Wanted::Unmounted,
            maintenance: Some(Maintenance { until: None }),
            ..Memory::default()
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_leaves_no_file() {
        let (directory, files) = files();
        assert_eq!(files.read_share("media").unwrap(), Memory::default());
        files.write_share("media", &memory(), &Ladder::default()).unwrap();
        assert_eq!(files.read_share("media").unwrap(), memory());
        files.write_share("media", &Memory::default(), &Ladder::default()).unwrap();
        assert!(!directory.path().join("run/share/media.json").exists());
        for list in [UnitList::Paused, UnitList::Stopped] {
            files.write_units(list, &units(&["a.service", "b.scope"])).unwrap();
            assert_eq!(files.read_units(list).unwrap(), units(&["a.service", "b.scope"]));
        }
        assert!(directory.path().join("lib/stopped.json").exists());
    }

    #[test]
    fn how_a_share_was_given_up_is_read_by_the_next_daemon_also_from_a_file_without_it() {
        let (directory, files) = files();
        assert_eq!(files.read_release("media").unwrap(), Ladder::default());
        let mut ladder = Ladder::default();
        let at = |seconds| BootInstant::from_boot(Duration::from_secs(seconds));
        ladder.began(at(7), OpId(1), &Step::Release, State::Releasing);
        ladder.ended(at(9), OpId(1), Ok(()));
        files.write_share("media", &Memory::default(), &ladder).unwrap();
        let read = files.read_release("media").unwrap();
        let [rung] = read.rungs() else { panic!("{read:?}") };
        assert_eq!((&*rung.operation, rung.began, rung.took), ("release", at(7), Some(Duration::from_secs(2))));
        assert_eq!(files.read_share("media").unwrap(), Memory::default());
        fs::write(directory.path().join("run/share/media.json"), "{\"fenced\": true}").unwrap();
        assert_eq!(files.read_release("media").unwrap(), Ladder::default(), "as it was before");
        assert!(files.read_share("media").unwrap().fenced);
    }

    #[test]
    fn a_broken_list_is_set_aside_and_its_units_are_not_forgotten() {
        let (directory, files) = files();
        files.write_units(UnitList::Paused, &units(&["a.service", "b.service"])).unwrap();
        let path = directory.path().join("run/paused.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end_matches(['}', ']', '\n', ' '])).unwrap();
        assert_eq!(files.read_units(UnitList::Paused).unwrap(), units(&["a.service", "b.service"]));
        assert!(directory.path().join("run/paused.json.broken").exists());
    }

    #[test]
    fn of_a_broken_memory_every_field_that_can_be_read_is_kept() {
        let (directory, files) = files();
        files.write_share("media", &memory(), &Ladder::default()).unwrap();
        let path = directory.path().join("run/share/media.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("true", "\"perhaps\"")).unwrap();
        assert_eq!(files.read_share("media").unwrap(), Memory { fenced: false, ..memory() });
        let cut = text.split("\"maintenance\"").next().unwrap();
        fs::write(&path, cut).unwrap();
        assert_eq!(files.read_share("media").unwrap(), Memory { maintenance: None, ..memory() });
    }

    #[test]
    fn a_sleep_while_no_daemon_ran_lengthens_nothing() {
        let slept = |seconds| Duration::from_secs(seconds);
        let after = |file: ShareFile| file.memory_after(slept(100)).outage_since.unwrap();
        let file = |slept| ShareFile { memory: memory(), slept, ..ShareFile::default() };
        assert_eq!(after(file(Some(slept(40)))), memory().outage_since.unwrap() + slept(60));
        assert_eq!(after(file(Some(slept(100)))), memory().outage_since.unwrap());
        assert_eq!(after(file(None)), memory().outage_since.unwrap(), "not known");
    }

    #[test]
    fn shares_that_are_not_configured_are_forgotten() {
        let (_directory, files) = files();
        files.write_share("old", &memory(), &Ladder::default()).unwrap();
        files.write_share("kept", &memory(), &Ladder::default()).unwrap();
        files.retain_shares(&BTreeSet::from(["kept".to_owned()])).unwrap();
        assert_eq!(files.read_share("old").unwrap(), Memory::default());
        assert_eq!(files.read_share("kept").unwrap(), memory());
    }

    #[test]
    fn a_server_is_remembered_by_name_and_host() {
        let (_directory, files) = files();
        let memory = |byte| ServerMemory { identity: Some(Identity([byte; 16])), address: "10.0.0.7".parse().ok() };
        let nothing = ServerMemory::default();
        assert_eq!(files.read_server("tower", "nas").unwrap(), nothing);
        files.write_server("tower", "nas", &memory(1)).unwrap();
        files.write_server("attic", "nas2", &memory(2)).unwrap();
        files.write_server("tower", "nas", &memory(3)).unwrap();
        assert_eq!(files.read_server("tower", "NAS").unwrap(), memory(3));
        assert_eq!(files.read_server("attic", "nas2").unwrap(), memory(2));
        assert_eq!(files.read_server("tower", "10.0.0.8").unwrap(), nothing, "the name was given to another machine");
        files.write_server("attic", "nas2", &nothing).unwrap();
        assert_eq!(files.read_server("attic", "nas2").unwrap(), nothing);
    }

    #[test]
    fn barriers_are_remembered_and_a_broken_one_is_not() {
        let (directory, files) = files();
        let barriers: Barriers = ["media", "films"]
            .map(|share| {
                (PathBuf::from(format!("/mnt/{share}")), LaidBarrier { share: share.to_owned(), on: "/".into() })
            })
            .into();
        assert_eq!(files.read_barriers().unwrap(), Barriers::new());
        files.write_barriers(&barriers).unwrap();
        assert_eq!(files.read_barriers().unwrap(), barriers);
        let path = directory.path().join("lib/barriers.json");
        let whole = fs::read_to_string(&path).unwrap();

        fs::write(&path, whole.replace("\"films\"", "7")).unwrap();
        let left = files.read_barriers().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), [Path::new("/mnt/media")]);
        assert_eq!(files.read_barriers().unwrap(), left, "what could be read was written");
        assert!(directory.path().join("lib/barriers.json.broken").exists());
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(files.read_barriers().unwrap(), Barriers::new());
        files.write_barriers(&barriers).unwrap();
        files.write_barriers(&Barriers::new()).unwrap();
        assert!(!path.exists(), "nothing leaves no file");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let (directory, files) = files();
        fs::write(directory.path().join("lib"), "a file in the way").unwrap();
        assert!(files.write_units(UnitList::Stopped, &units(&["a.service"])).is_err());
        assert!(files.write_units(UnitList::Paused, &units(&["a.service"])).is_ok());
    }

    #[test]
    fn the_lists_are_what_was_done() {
        let (paused, mut stopped) = (units(&["a.service", "b.service"]), units(&["b.service", "c.service"]));
        stopped.insert("c.service".to_owned(), "0a1b".to_owned());
        let held = held(&paused, &stopped);
        assert_eq!(held["b.service"], HeldUnit { held: Held::PausedAndStopped, run: None });
        assert_eq!(held["c.service"], HeldUnit { held: Held::Stopped, run: Some("0a1b".to_owned()) });
        assert_eq!(lists(&held), (paused, stopped));
    }
}
