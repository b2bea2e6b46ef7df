//! The cases, in the order in which they run.
//!
//! Neighbours use different NASes: a server goes on serving the connection that an outage cut for a minute or two, and makes
//! the next client wait until the lost one gives its leases back (seen with Samba 4.17).

mod c00_control;
mod c10_outages;
mod c12_no_patience;
mod c20_hold_over;
mod c21_containers;
mod c22_engine;
mod c23_film;
mod c26_user_unit;
mod c30_daemon_dies;
mod c32_every_state;
mod c40_blocked;
mod c41_without_nft;
mod c50_two_shares;
mod c51_operator;
mod c52_fstab;
mod c53_rescue;
mod c60_nas;
mod c61_network;
mod c62_diagnose;
mod c63_sleep;
mod c64_only_on;
mod c65_kerberos;
mod c66_neighbours;
mod c70_dependency;
mod c72_not_left_alone;
mod c80_poweroff;

use anyhow::Result;

use crate::guest::Guest;

/// Where a case runs unless it is asked for by name; all but those of `Request` also run on the newest Debian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// On every suite.
    EverySuite,
    /// On the default one: what it shows depends neither on the kernel nor on systemd, or another case shows it there as well.
    Trixie,
    /// On the other one: the part of a case of the default one that may differ there, or as `Trixie`, so that both take as long.
    Bookworm,
    /// On the newest alone, which has the neighbours that it is about.
    Newest,
    /// Nowhere: it takes longer than all others together.
    Request,
}

/// One story told to a guest. Its facts, the figures that were seen, are printed behind its name.
pub struct Case {
    pub name: &'static str,
    pub on: On,
    pub run: fn(&Guest) -> Result<String>,
}

pub const CASES: &[Case] = &[
    Case { name: "00-control", on: On::Trixie, run: c00_control::run },
    Case { name: "10-outages", on: On::EverySuite, run: c10_outages::run },
    Case { name: "12-no-patience", on: On::Bookworm, run: c12_no_patience::run },
    Case { name: "20-hold-over", on: On::Trixie, run: c20_hold_over::run },
    Case { name: "21-containers", on: On::Bookworm, run: c21_containers::run },
    Case { name: "22-engine", on: On::Bookworm, run: c22_engine::podman },
    Case { name: "23-film", on: On::EverySuite, run: c23_film::short },
    Case { name: "24-long-film", on: On::Request, run: c23_film::long },
    Case { name: "25-hold-over-hard", on: On::Bookworm, run: c20_hold_over::hard },
    Case { name: "26-user-unit", on: On::Bookworm, run: c26_user_unit::run },
    Case { name: "27-docker", on: On::Newest, run: c22_engine::docker },
    Case { name: "30-killed-while-holding", on: On::Bookworm, run: c30_daemon_dies::killed_while_holding },
    Case { name: "31-cannot-come-back", on: On::Bookworm, run: c30_daemon_dies::cannot_come_back },
    Case { name: "32-killed-in-every-state", on: On::Trixie, run: c32_every_state::run },
    Case { name: "40-blocked", on: On::Trixie, run: c40_blocked::run },
    Case { name: "41-without-nft", on: On::Bookworm, run: c41_without_nft::run },
    Case { name: "50-two-shares", on: On::Bookworm, run: c50_two_shares::run },
    Case { name: "51-operator", on: On::Trixie, run: c51_operator::run },
    Case { name: "52-fstab", on: On::Bookworm, run: c52_fstab::run },
    Case { name: "53-rescue", on: On::Bookworm, run: c53_rescue::run },
    Case { name: "60-nas", on: On::Trixie, run: c60_nas::run },
    Case { name: "61-network", on: On::Bookworm, run: c61_network::run },
    Case { name: "62-diagnose", on: On::Bookworm, run: c62_diagnose::run },
    Case { name: "63-sleep", on: On::Trixie, run: c63_sleep::run },
    Case { name: "64-only-on", on: On::Trixie, run: c64_only_on::run },
    Case { name: "65-kerberos", on: On::Trixie, run: c65_kerberos::run },
    Case { name: "66-neighbours", on: On::Newest, run: c66_neighbours::run },
    Case { name: "70-dependency", on: On::Trixie, run: c70_dependency::run },
    Case { name: "71-dependency-by-hand", on: On::Bookworm, run: c70_dependency::without_boot },
    Case { name: "72-not-left-alone", on: On::Trixie, run: c72_not_left_alone::run },
    Case { name: "80-poweroff", on: On::Trixie, run: c80_poweroff::run },
    Case { name: "81-poweroff-hung", on: On::Bookworm, run: c80_poweroff::hung },
];
