//! One outage of all servers at the same time: calls and consumers on each way, from before the cut until all works again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::commands;
use super::report::{Consumer, Measured, Outage};
use super::stalls::{Calls, Moments};
use super::ways::{Way, Ways};
use crate::guest::{Guest, Job, number};
use crate::load::{Kind, Load};
use crate::nas::{self, Fault};
use crate::nasmount::DEADLINE;

/// Calls are begun anew when an outage is so old: several times what detection takes, so that they are those of people who come
/// when it is known.
const LATE: Duration = Duration::from_secs(15);
/// Watched after the heal. Today's ways were seen to need up to 7 s.
const RECOVERY: Duration = Duration::from_secs(40);
/// Where the guest keeps what the calls met.
const OUT: &str = "/run/bench";
/// All consumers are at work when each has done so many operations.
const AT_WORK: u64 = 10;
/// Processes of calls end a second after they have reported, unless a call still hangs.
const LAST_CALL: Duration = Duration::from_secs(20);
/// No answer of nasmount takes so long, also under emulation.
const STATUS_LIMIT: Duration = Duration::from_secs(20);

/// What happens to the servers.
pub struct Course {
    /// How a person calls it.
    pub name: &'static str,
    pub fault: Fault,
    pub length: Duration,
}

/// How long commands took while all servers were dead, in seconds.
#[derive(Default)]
pub struct Answers {
    pub status: Vec<f64>,
    pub version: Vec<f64>,
}

/// Calls and consumers that are at work on all ways.
struct Watch<'run> {
    guest: &'run Guest,
    ways: &'run [Way<'run>],
    loads: Vec<Load<'run>>,
    calls: Vec<Job<'run>>,
    /// The fault, for names of files.
    run: &'static str,
}

/// Lets one outage happen. What cannot be said of a way is added to the remarks.
pub fn run(
    ways: &Ways<'_>,
    course: &Course,
    times: u32,
    answers: &mut Answers,
    remarks: &mut Vec<String>,
) -> Result<Outage> {
    let guest = ways.guest;
    let run = course.fault.name();
    let mut watch = Watch::begin(ways, run)?;
    let outages = nas::cut_all(ways.all.iter().map(|way| (way.nas, course.fault)))?;
    let cuts: Vec<f64> = outages.iter().map(|outage| outage.began).collect();
    let last_cut = outages.iter().max_by(|a, b| a.began.total_cmp(&b.began)).context("no server was cut")?;
    let noticed = ways.wait_for_state("holding")?;
    last_cut.last(LATE)?;
    let late = number(&guest.ok(&format!("cut -d' ' -f1 /proc/uptime; touch {OUT}/{run}.late"))?)?;
    ask(guest, times, answers)?;
    last_cut.last(course.length)?;
    let healed = nas::heal_all(outages)?;
    let online = ways.wait_for_state("online")?;
    let rest = format!("sleep {}; touch {OUT}/{run}.stop", RECOVERY.as_secs());
    guest.run_within(RECOVERY + DEADLINE, &rest)?;
    let of =
        |states: &[(&str, f64)], way: &Way<'_>| states.iter().find(|(name, _)| *name == way.name).map(|(_, at)| *at);
    let (calls, consumers) = (watch.calls(remarks)?, watch.finish(remarks));
    let mut measured = Vec::new();
    let moments = cuts.into_iter().zip(healed);
    for (((way, (cut, healed)), calls), consumers) in ways.all.iter().zip(moments).zip(calls).zip(consumers) {
        let moments = Moments { noticed: of(&noticed, way).unwrap_or(late), late, healed };
        measured.push(Measured {
            way: way.name.to_owned(),
            calls: calls.phases(moments),
            works_again: calls.works_again(healed),
            consumers,
            // a server that is being stopped can be seen to be dead before it is complete
            noticed: of(&noticed, way).map(|at| (at - cut).max(0.0)),
            online: of(&online, way).map(|at| at - healed),
        });
    }
    let (name, seconds) = (course.name.to_owned(), course.length.as_secs_f64());
    Ok(Outage { fault: name, seconds, late: LATE.as_secs_f64(), ways: measured })
}

/// `nasmount status`, and the start of the same program without a question.
fn ask(guest: &Guest, times: u32, answers: &mut Answers) -> Result<()> {
    let asked = ["nasmount status", "nasmount --version"];
    for (command, durations) in asked.into_iter().zip([&mut answers.status, &mut answers.version]) {
        for one in commands::run(guest, STATUS_LIMIT, times, &[(command, command)])?.remove(command).unwrap_or_default()
        {
            durations.push(one.seconds);
        }
    }
    Ok(())
}

impl<'run> Watch<'run> {
    fn begin(ways: &'run Ways<'_>, run: &'static str) -> Result<Self> {
        let (guest, all) = (ways.guest, ways.all.as_slice());
        let exports: Vec<String> = all.iter().map(|way| way.nas.export("media")).collect();
        guest.ok(&format!("mkdir -p {OUT} && /host/guest/bench.py entries {run} {}", exports.join(" ")))?;
        let loads = all.iter().map(|way| way.load().start(&way.point)).collect::<Result<Vec<_>>>()?;
        let mut watch = Self { guest, ways: all, loads, calls: Vec::new(), run };
        for way in all {
            let (point, out) = (&way.point, watch.out(way));
            let files = format!("--out {out} --late {OUT}/{run}.late --stop {OUT}/{run}.stop");
            watch.calls.push(guest.spawn(&format!("/host/guest/bench.py calls {point} --run {run} {files}"))?);
        }
        guest.wait_for("calls on all ways", DEADLINE, &watch.all_there(".ready"))?;
        // of all consumers in one process: looking is a load, too
        let counts: Vec<String> = watch.loads.iter().map(Load::counts).collect();
        let at_work = format!(
            "awk '$1 < {AT_WORK} {{ few = 1 }} END {{ exit few || NR < {} }}' {}",
            all.len() * Kind::ALL.len(),
            counts.join(" ")
        );
        guest.wait_for("consumers on all ways", DEADLINE, &at_work)?;
        Ok(watch)
    }

    /// A condition: each way has the file of this name.
    fn all_there(&self, suffix: &str) -> String {
        let each: Vec<String> = self.ways.iter().map(|way| format!("[ -e {}{suffix} ]", self.out(way))).collect();
        each.join(" && ")
    }

    fn out(&self, way: &Way<'_>) -> String {
        format!("{OUT}/{}.{}", self.run, way.id())
    }

    /// What the calls met, way by way.
    fn calls(&mut self, remarks: &mut Vec<String>) -> Result<Vec<Calls>> {
        self.guest.wait_for("the calls' reports", DEADLINE, &self.all_there(""))?;
        for (way, job) in self.ways.iter().zip(self.calls.drain(..)) {
            if job.wait(LAST_CALL).is_err() {
                remarks.push(format!("{}, {}: a call still hung after the end", self.run, way.name));
            }
        }
        let of_way = |way: &Way<'_>| {
            let report = self.guest.json(&format!("cat {}", self.out(way)))?;
            serde_json::from_value(report).with_context(|| format!("calls on {}", way.name))
        };
        self.ways.iter().map(of_way).collect()
    }

    /// The accounts of each way's consumers, by kind.
    fn finish(&self, remarks: &mut Vec<String>) -> Vec<BTreeMap<String, Consumer>> {
        let finished = self.ways.iter().zip(&self.loads).map(|(way, load)| match load.finish(way.nas, DEADLINE) {
            Ok(accounts) => accounts
                .into_iter()
                .map(|(kind, account)| {
                    let (errors, longest) = (account.failures(), account.longest);
                    let consumer = Consumer { acked: account.acked, lost: account.lost, errors, longest };
                    (kind.name().to_owned(), consumer)
                })
                .collect(),
            Err(error) => {
                remarks.push(format!("{}, {}: the consumers did not end: {error:#}", self.run, way.name));
                BTreeMap::new()
            }
        });
        finished.collect()
    }
}
