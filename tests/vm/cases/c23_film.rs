//! The incident's story with a real transcoder: a film is read from a share and written back to it through outages and a NAS that flaps,
//! and comes out as if there had been none. The same on a plain mount, through the same faults, is the positive control.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, Fault, Nas, Outage};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point};

/// What the films are exposed to, one after the other.
struct Story {
    /// The film is transcoded as fast as it plays, so this is how long the work takes; longer than all faults together.
    film: Duration,
    outages: &'static [Duration],
    flaps: u32,
    patience: &'static str,
}

const SHORT: Story =
    Story { film: Duration::from_secs(160), outages: &[Duration::from_secs(40)], flaps: 4, patience: "2m" };

/// As its issue asks: 20 s, 2 and 10 minutes, and five minutes of flapping.
const LONG: Story = Story {
    film: Duration::from_secs(1500),
    outages: &[Duration::from_secs(20), Duration::from_secs(120), Duration::from_secs(600)],
    flaps: 40,
    patience: "12m",
};

/// How long a NAS that flaps is away, and how long it then is there.
const FLAP: Duration = Duration::from_secs(4);
/// Never on a share: the original, its transcoding without an outage, and what ffmpeg says.
const DIRECTORY: &str = "/var/tmp/film";
/// On this the kernel gives up within the shortest outage of the control.
const PLAIN: &str = "guest,vers=3.1.1,nosharesock,soft,echo_interval=1";
const PLAIN_MOUNT_POINT: &str = "/mnt/film-plain";

pub fn short(guest: &Guest) -> Result<String> {
    run(guest, &SHORT)
}

pub fn long(guest: &Guest) -> Result<String> {
    run(guest, &LONG)
}

fn run(guest: &Guest, story: &Story) -> Result<String> {
    let servers = nas::up(guest, [8, 9])?;
    let [nas, plain] = servers;
    make_film(guest, story, servers)?;
    let more = format!("profile = \"transcode\"\npatience = \"{}\"", story.patience);
    let share = ShareOf {
        name: "film",
        nas,
        source: "media",
        more: &more,
        probe: UNHURRIED,
        credentials: None,
        units: vec![unit("held")],
    };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state("film", "online")?;
    let source = plain.source("media");
    guest.ok(&format!("mkdir -p {PLAIN_MOUNT_POINT} && mount -t cifs {source} {PLAIN_MOUNT_POINT} -o {PLAIN}"))?;
    for (id, directory) in [("held", mount_point("film")), ("plain", PLAIN_MOUNT_POINT.to_owned())] {
        let work = format!(
            "{}; echo $? >{DIRECTORY}/{id}.code",
            transcode(
                &format!("-re -progress {DIRECTORY}/{id}.progress"),
                &directory,
                &format!("{directory}/{id}.mkv")
            )
        );
        guest.ok(&format!("systemd-run --quiet --unit={} bash -c '{work}'", unit(id)))?;
        // ten seconds of film and more
        let at_work = format!("grep -q '^out_time=00:00:[1-5]' {DIRECTORY}/{id}.progress");
        guest.wait_for("the transcoder to be at work", DEADLINE, &at_work)?;
    }

    for &length in story.outages {
        let outages = cut(servers)?;
        nasmount.wait_for_state("film", "holding")?;
        if let Some(outage) = outages.first() {
            outage.last(length)?;
        }
        nas::heal_all(outages)?;
        nasmount.wait_for_state("film", "online")?;
    }
    for _ in 0..story.flaps {
        let outages = cut(servers)?;
        if let Some(outage) = outages.first() {
            outage.last(FLAP)?;
        }
        nas::heal_all(outages)?;
        guest.ok(&format!("sleep {}", FLAP.as_secs()))?;
    }
    guest.ok(&format!("! [ -e {DIRECTORY}/held.code ]"))?; // otherwise the film was over before the faults were
    nasmount.wait_for_state("film", "online")?;
    let held = outcome(guest, story, "held", nas)?;
    let control = outcome(guest, story, "plain", plain)?;
    let holds = guest.ok("journalctl -b -u nasmount | grep -c 'name=film}.*to=holding'")?;
    let exports = servers.map(|nas| format!("{}/*.mkv", nas.export("media"))).join(" ");
    guest.ok(&format!("umount --lazy {PLAIN_MOUNT_POINT} && rm -r {DIRECTORY} {exports}"))?;
    nasmount.remove()?;
    ensure!(!control.same, "the faults did no harm without nasmount either: {}", control.told);
    ensure!(held.same, "the film has suffered: {}; without nasmount: {}", held.told, control.told);
    Ok(format!("as without an outage after {holds} holds: {}; without nasmount: {}", held.told, control.told))
}

/// The original, which both servers get, and what has to come out of it.
fn make_film(guest: &Guest, story: &Story, servers: [Nas<'_>; 2]) -> Result<()> {
    let seconds = story.film.as_secs();
    // the sound, 32 KB a second, keeps the reader busy, and the pictures the encoder, as far as an emulated processor goes
    let original = format!(
        "ffmpeg -nostdin -v error -f lavfi -i testsrc=size=96x72:rate=5 -f lavfi -i sine=sample_rate=16000 -t {seconds} \
         -c:v mjpeg -c:a pcm_s16le -f matroska {DIRECTORY}/film.mkv"
    );
    let expected = transcode("", DIRECTORY, &format!("{DIRECTORY}/expected.mkv"));
    let copies = servers.map(|nas| format!("cp {DIRECTORY}/film.mkv {}", nas.export("media"))).join(" && ");
    let limit = DEADLINE + story.film;
    let made = guest.run_within(limit, &format!("mkdir -p {DIRECTORY} && {original} && {expected} && {copies}"))?;
    ensure!(made.code == 0, "no film could be made: {made:?}");
    Ok(())
}

/// The same input gives the same output, to the bit, whatever the time and the number of processors.
fn transcode(options: &str, from: &str, to: &str) -> String {
    format!(
        "ffmpeg -nostdin -v error {options} -i {from}/film.mkv -threads 1 -flags +bitexact -fflags +bitexact -c:v mpeg4 -r 10 \
         -c:a copy -f matroska {to} 2>>{DIRECTORY}/said"
    )
}

fn unit(id: &str) -> String {
    format!("film-{id}.service")
}

/// Pulls both cables at the same time.
fn cut<'guest>(servers: [Nas<'guest>; 2]) -> Result<Vec<Outage<'guest>>> {
    nas::cut_all(servers.map(|nas| (nas, Fault::Link)))
}

struct Outcome {
    /// The transcoder ended well, and the server has what it has to have.
    same: bool,
    told: String,
}

/// Waits for the end of a transcoder and compares what its server has with what comes out without an outage.
fn outcome(guest: &Guest, story: &Story, id: &str, nas: Nas<'_>) -> Result<Outcome> {
    let code = format!("{DIRECTORY}/{id}.code");
    guest.wait_for("the end of the transcoder", DEADLINE + story.film, &format!("[ -e {code} ]"))?;
    let (file, expected) = (format!("{}/{id}.mkv", nas.export("media")), format!("{DIRECTORY}/expected.mkv"));
    let told = guest.ok(&format!(
        "echo \"exit code $(cat {code}), $(stat -c %s {file}) of $(stat -c %s {expected}) bytes, the first that differs: \
         $(cmp {file} {expected} 2>&1 | grep -o 'byte [0-9]*' || echo none)\""
    ))?;
    let same = guest.run(&format!("[ $(cat {code}) = 0 ] && cmp {file} {expected}"))?.code == 0;
    Ok(Outcome { same, told })
}
