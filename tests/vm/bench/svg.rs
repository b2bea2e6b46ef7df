//! The report as a chart: horizontal bars on a logarithmic scale, in colours that can be seen on light and on dark.

use std::fmt::Write as _;

use super::report::{Measured, Operation, Outage, Phases, Report, Stall};
use super::targets::is_ours;

/// Pixels. The names of ways stand to the left of the bars, figures to the right.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 130.0;
const BARS: f64 = 520.0;
const LINE: f64 = 17.0;
const GAP: f64 = 12.0;
/// Grey enough for both backgrounds; nasmount's bars are the green ones.
const TEXT: &str = "#7d8590";
const TODAY: &str = "#c2703d";
const OURS: &str = "#2f9e6e";
/// Both ends of the scales: a millisecond is as good as nothing, and no outage of a run is longer than a quarter of an hour.
const SECONDS: (f64, f64) = (0.001, 900.0);
const BLOCKS: (f64, f64) = (0.5, 2000.0);

type OfPhase = fn(&Phases) -> &Stall;
type Among = fn(Operation) -> bool;

/// A group of bars: its title, the ends of its scale, and of each way the value and what stands behind the bar.
struct Group {
    title: String,
    scale: (f64, f64),
    bars: Vec<(String, f64, String)>,
}

pub fn render(report: &Report) -> String {
    let groups: Vec<Group> = report.outages.iter().flat_map(groups).collect();
    let mut body = String::new();
    let mut y = GAP + LINE;
    text(
        &mut body,
        GAP,
        y,
        "bold",
        "Longest stall and blocks lost, in the same outages at the same time (logarithmic)",
    );
    for group in &groups {
        y += GAP + LINE;
        text(&mut body, GAP, y, "bold", &group.title);
        for (way, value, label) in &group.bars {
            y += LINE;
            bar(&mut body, y, way, length(*value, group.scale), label);
        }
    }
    let height = y + GAP + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n{body}</svg>\n"
    )
}

fn groups(outage: &Outage) -> Vec<Group> {
    let phases: [(&str, OfPhase); 2] =
        [("begun before the cut", |phases| &phases.before), ("begun in the outage", |phases| &phases.after)];
    let means: [(&str, Among); 2] = [
        ("open descriptors (read, write, fsync)", |operation| !operation.is_by_path()),
        ("paths (stat, open, readdir, statfs)", Operation::is_by_path),
    ];
    let mut all = Vec::new();
    for (phase, of) in phases {
        for (what, among) in means {
            let bars = outage.ways.iter().map(|way| stall(way, of, among)).collect();
            let title = format!("{}, {:.0} s: calls on {what}, {phase}", outage.fault, outage.seconds);
            all.push(Group { title, scale: SECONDS, bars });
        }
    }
    let title = format!("{}, {:.0} s: blocks lost by the buffered writer", outage.fault, outage.seconds);
    all.push(Group { title, scale: BLOCKS, bars: outage.ways.iter().map(lost).collect() });
    all
}

fn stall(way: &Measured, of: OfPhase, among: Among) -> (String, f64, String) {
    let failed = way.calls.iter().filter(|(operation, _)| among(**operation));
    let failed: u32 = failed.flat_map(|(_, phases)| of(phases).errors.values()).sum();
    let longest = way.longest(of, among);
    let mut label = longest.map_or_else(|| "no call".to_owned(), |took| took.text());
    if failed > 0 {
        let _ = write!(label, ", {failed} failed");
    }
    (way.way.clone(), longest.map_or(0.0, |took| took.seconds), label)
}

fn lost(way: &Measured) -> (String, f64, String) {
    let account = way.consumers.get("buffered");
    let label =
        account.map_or_else(|| "not known".to_owned(), |account| format!("{} of {}", account.lost, account.acked));
    (way.way.clone(), account.map_or(0.0, |account| account.lost as f64), label)
}

/// Pixels of a bar; nothing for what is below the scale.
fn length(value: f64, (least, most): (f64, f64)) -> f64 {
    let share = (value.max(least) / least).ln() / (most / least).ln();
    BARS * share.min(1.0)
}

fn bar(body: &mut String, y: f64, way: &str, length: f64, label: &str) {
    let colour = if is_ours(way) { OURS } else { TODAY };
    let top = y - LINE + 5.0;
    text(body, GAP, y, "normal", way);
    let _ = writeln!(
        body,
        "<rect x=\"{LEFT}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>",
        LINE - 4.0
    );
    text(body, LEFT + length + 6.0, y, "normal", label);
}

fn text(body: &mut String, x: f64, y: f64, weight: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.0}\" font-weight=\"{weight}\" fill=\"{TEXT}\">{words}</text>");
}
