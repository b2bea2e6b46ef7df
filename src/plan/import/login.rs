//! What becomes of the login of a line.
//!
//! mount.cifs reads a credentials file where its option stands: of two user names or domains the last one counts, whether a file says it
//! or the line (`parse_options()`, `open_cred_file()`).

use std::path::Path;

use super::super::fstab::HIDDEN;
use super::super::inline_login::{
    Beside, credentials_text, first_of_several_is_empty, has_password, is_guest, meant, with_domain,
};
use super::{Conflict, Line, Look, Means};
use crate::config::credentials::Credentials;

impl Line<'_> {
    /// With what the server is asked.
    pub(super) fn settle_login(&mut self, look: Look<'_>) {
        let said = std::mem::take(&mut self.said);
        let names = || said.iter().map(|option| option.split('=').next().unwrap_or_default());
        if self.kerberos {
            let file = matches!(self.login, Means::File(_)).then_some("credentials");
            names().chain(file).for_each(|name| self.remark(name, "left out: Kerberos has the login"));
            self.login = Means::Kerberos;
        } else if let Means::File(file) = &self.login {
            let file = file.clone();
            if self.says_guest {
                self.remark("guest", format!("left out: the login of {file} counts"));
            }
            self.settle_beside(&file, &said, look);
        } else if !has_password(&said) && (said.is_empty() || self.says_guest || is_guest(&said)) {
            if self.says_guest && !is_guest(&said) {
                names()
                    .for_each(|name| self.remark(name, "left out: `guest` stands beside it, and a guest has no login"));
            }
            self.says_guest |= !said.is_empty();
        } else {
            if self.says_guest {
                self.remark("guest", "left out: the login beside it counts");
            }
            self.say_several_passwords(&said);
            self.login = Means::Inline(credentials_text(&said));
        }
    }

    fn say_several_passwords(&mut self, said: &[String]) {
        let empty = match first_of_several_is_empty(said) {
            None => return,
            Some(true) => ", and it is empty",
            Some(false) => "",
        };
        let message = format!(
            "there are two passwords: the first one counts, as it does to mount.cifs{empty}; take the one out that is not meant"
        );
        self.remark("password", message);
    }

    /// Options, with their numbers, that would be the login if they were spelt as the CIFS client has them. Without them the share would be
    /// a guest's, or the login another one.
    pub(super) fn hold_back_misspelt(&mut self, options: &[(usize, String)], rests: &[(usize, String)]) {
        if self.kerberos || matches!(self.login, Means::File(_)) {
            return;
        }
        let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
        let named = options.iter().filter_map(|(number, option)| Some((*number, name(option), meant(option)?)));
        // it may be a part of a password
        let hidden = rests.iter().filter_map(|(number, option)| Some((*number, HIDDEN.to_owned(), meant(option)?)));
        let mut found: Vec<_> = named.chain(hidden).collect();
        found.sort_unstable();
        self.conflicts.extend(found.into_iter().map(|(number, option, known)| {
            let or = if option == HIDDEN {
                " (if it is a part of the password: `credentials=FILE` instead of both)"
            } else {
                ""
            };
            Conflict {
                at: self.at.clone(),
                option,
                message: format!("option {number} of the line is none of the CIFS client, and the login would lack it"),
                help: format!("did you mean `{known}`? Write it so, or take it out{or}; then try again"),
            }
        }));
    }

    /// Of a line that is held back: what may be the rest of a password.
    pub(super) fn remark_unseen(&mut self, rests: &[(usize, String)]) {
        if rests.is_empty() {
            return;
        }
        let numbers: Vec<String> = rests.iter().map(|(number, _)| number.to_string()).collect();
        let options = if numbers.len() == 1 { "option" } else { "options" };
        let message = format!(
            "not looked at, nor shown: {options} {} of the line, as a password may go on behind its comma",
            numbers.join(", ")
        );
        self.remark("", message);
    }

    /// Of several files mount.cifs ends up with what the last one says.
    pub(super) fn take_file(&mut self, file: &str) {
        if let Means::File(before) = &self.login
            && before != file
        {
            let message = format!("{before} is left out: {file} comes after it, and the last one counts");
            self.remark("credentials", message);
        }
        self.login = Means::File(file.to_owned());
        self.said_before_file = self.said.len();
    }

    /// What stands beside a file: the file may say the same, and a domain can be added to what it says. All else would be lost.
    fn settle_beside(&mut self, file: &str, said: &[String], look: Look<'_>) {
        if said.is_empty() {
            return;
        }
        let Some(login) = look(Path::new(file)) else {
            let why = ", which cannot be looked into";
            return self.hold_back(file, said, why, "see that it is there and root's alone, and run this as root; or ");
        };
        let beside = Beside::of(said).filter(|beside| beside.user.is_none() || beside.user == login.username);
        let Some(Beside { domain, .. }) = beside else { return self.hold_back(file, said, "", "") };
        for (index, option) in said.iter().enumerate() {
            let name = option.split('=').next().unwrap_or_default();
            match &domain {
                Some((counts, domain)) if *counts == index => self.settle_domain(file, &login, name, (index, domain)),
                Some((counts, _)) if index < *counts => {
                    self.remark(name, "left out: another one comes after it, and the last one counts");
                }
                Some(_) | None => self.remark(name, format!("left out: {file} has the same")),
            }
        }
    }

    fn settle_domain(&mut self, file: &str, login: &Credentials, name: &str, (index, domain): (usize, &str)) {
        let in_file = login.domain.as_deref();
        let message = if in_file.unwrap_or_default() == domain {
            format!("left out: {file} has the same")
        } else if in_file.is_some() && index < self.said_before_file {
            format!("left out: {file} has another one and comes after it, and the last one counts")
        } else {
            self.login = Means::Inline(with_domain(login, domain));
            let has = if in_file.is_some() { "another one" } else { "none" };
            format!(
                "{file} has {has}, and nasmount logs in with a file alone: what it has goes into a new one with this domain; {file} stays \
                 as it is"
            )
        };
        self.remark(name, message);
    }

    fn hold_back(&mut self, file: &str, said: &[String], why: &str, first: &str) {
        let names = said.iter().map(|option| option.split('=').next().unwrap_or_default());
        self.conflicts.extend(names.map(|name| Conflict {
            at: self.at.clone(),
            option: name.to_owned(),
            message: format!(
                "it stands beside credentials={file}{why}, and would be lost: nasmount logs in with the file alone"
            ),
            help: format!(
                "{first}write it into {file}, on a line of its own, or take it out of the options; then try again"
            ),
        }));
    }
}
