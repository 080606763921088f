//! The section `callers`: who is known, and which of them a policy allows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    check::join,
    content::{self, Most},
    fault::{Found, Place},
    node::{Node, Value},
    secrets::Secrets,
    section::{Section, Setting},
    server::Bounds,
};
use crate::policy::{
    Allowed, Callers,
    callers::{
        CallerName, Digest, Proofs,
        jwt::{Issuer, Source, algorithm},
        keys::{Keys, Remote},
    },
    endpoint::Url,
};

const LEEWAY: Duration = Duration::from_secs(30);

/// The callers of a file.
pub(super) struct Known {
    /// None if the file has no such section, and then everybody may call.
    pub callers: Option<Callers>,
    names: Option<Vec<CallerName>>,
    inline: Vec<CallerName>,
}

/// Reads who is known.
pub(super) fn callers(root: &Node, server: &Section<'_>, secrets: &mut Secrets, found: &mut Found) -> Known {
    let Some(node) = root.get("callers") else { return Known { callers: None, names: None, inline: Vec::new() } };
    let mut known = BTreeMap::new();
    let (mut names, mut inline) = (Vec::new(), Vec::new());
    let mut taken = HashMap::new();
    for entry in node.entries() {
        let path = join("callers", &entry.key);
        let name = CallerName::parse(&entry.key).map_err(|_| {
            found.add(Some(entry.place), &path, "is not a caller's name: expected letters, digits, `-`, `_` or `.`")
        });
        let (Ok(name), Value::Map(_)) = (name, &entry.node.value) else { continue };
        let own = Section::new(Some(&entry.node), None, &path);
        let proofs = proofs(&own, server, secrets, found);
        twice(&own, &name, &mut taken, found);
        if own.boolean("inline").unwrap_or(false) {
            inline.push(name.clone());
        }
        names.push(name.clone());
        known.insert(name, proofs);
    }
    if known.is_empty() {
        let message = "is empty, by which nobody could call: give callers, or leave it out";
        found.add(Some(node.place), "callers", message);
    }
    Known { callers: Some(Callers::new(known)), names: Some(names), inline }
}

impl Known {
    /// Who may bring policies.
    pub(super) fn inline(&self) -> Allowed {
        if self.names.is_some() { Allowed::Only(self.inline.clone().into()) } else { Allowed::Anyone }
    }

    /// Who may call what has this section.
    pub(super) fn allowed(&self, section: &Section<'_>, found: &mut Found) -> Allowed {
        let known = self.names.as_deref().unwrap_or_default();
        let named = section.list("callers", found, |text| {
            let caller = known.iter().find(|name| name.as_str() == text);
            caller.cloned().ok_or_else(|| format!("`{text}` is no caller of this file"))
        });
        if self.names.is_some() { Allowed::Only(named.into()) } else { Allowed::Anyone }
    }
}

fn proofs(own: &Section<'_>, server: &Section<'_>, secrets: &mut Secrets, found: &mut Found) -> Proofs {
    let keys = ["tokens", "certificates", "users", "jwt"];
    if keys.iter().all(|key| own.get(key).is_none()) {
        let message = "cannot be known: give `tokens`, `certificates`, `users` or `jwt`";
        found.add(own.place(), own.key("").trim_end_matches('.'), message);
    }
    let mut needs = |key: &str, met: bool, message: &str| {
        if let (Some(setting), false) = (own.get(key), met) {
            found.add(Some(setting.node.place), setting.key, message);
        }
    };
    let verifies = server.get("tls").is_some_and(|tls| tls.node.get("client_ca").is_some());
    needs("certificates", verifies, "needs `server.tls.client_ca`, without which no certificate is asked for");
    let unix =
        server.get("listen").is_some_and(|listen| listen.node.text().is_some_and(|text| text.starts_with("unix:")));
    needs("users", unix, "needs a Unix socket in `server.listen`");
    Proofs {
        tokens: own.list("tokens", found, Digest::parse),
        certificates: own.list("certificates", found, |text| match text.trim() {
            "" => Err("is blank: expected a URI or a DNS name"),
            name => Ok(name.to_owned()),
        }),
        users: own.list("users", found, |text| {
            text.parse().map_err(|_| format!("`{text}` is no user id: expected a number"))
        }),
        jwt: own.get("jwt").and_then(|setting| jwt(&setting, secrets, found)),
    }
}

/// What proves two callers proves none.
fn twice(own: &Section<'_>, name: &CallerName, taken: &mut HashMap<String, CallerName>, found: &mut Found) {
    for key in ["tokens", "certificates", "users"] {
        let Some(setting) = own.get(key) else { continue };
        let items: &[Node] = match &setting.node.value {
            Value::List(items) => items,
            Value::Text(_) | Value::Null | Value::Map(_) => std::slice::from_ref(setting.node),
        };
        for item in items {
            let Some(text) = item.text() else { continue };
            let other = taken.insert(format!("{key} {}", text.to_ascii_lowercase()), name.clone());
            if let Some(other) = other {
                found.add(Some(item.place), setting.key.clone(), format_args!("is {other}'s already"));
            }
        }
    }
}

fn jwt(setting: &Setting<'_>, secrets: &mut Secrets, found: &mut Found) -> Option<Issuer> {
    let Value::Map(_) = setting.node.value else { return None };
    let own = Section::new(Some(setting.node), None, &setting.key);
    let text = |text: &str| Ok::<_, String>(text.to_owned());
    let (issuer, audiences) = (own.text("issuer"), own.list("audience", found, text));
    let subjects = own.list("subjects", found, text);
    let algorithms = own.list("algorithms", found, algorithm);
    let leeway = own.bounded("leeway", found, |leeway| Bounds("0s", "5m").check(leeway)).unwrap_or(LEEWAY);
    let keys = match (own.get("jwks_file"), own.get("jwks_url")) {
        (Some(file), None) => Source::File(Arc::new(file_keys(&file, secrets, found)?)),
        (None, Some(_)) => Source::Remote(Arc::new(Remote::new(url(&own, found)?))),
        (file, _) => {
            let message = match file {
                Some(_) => "is said twice: set `jwks_file` or `jwks_url`",
                None => "is missing: set `jwks_file` or `jwks_url`",
            };
            found.add(own.place(), own.key("jwks_file"), message);
            return None;
        }
    };
    // The check has told of what is missing; without an audience any token of the issuer's would do.
    if audiences.is_empty() {
        empty(&own, "audience", found);
        return None;
    }
    if own.get("subjects").is_some() && subjects.is_empty() {
        empty(&own, "subjects", found);
    }
    Some(Issuer::new(&issuer?, &audiences, subjects, algorithms, leeway, keys))
}

fn empty(own: &Section<'_>, key: &str, found: &mut Found) {
    if let Some(setting) = own.get(key) {
        found.add(Some(setting.node.place), setting.key, "is empty: give it a value, or leave it out");
    }
}

fn file_keys(setting: &Setting<'_>, secrets: &mut Secrets, found: &mut Found) -> Option<Keys> {
    let path = secrets.path(setting.node.text()?);
    let place: Option<Place> = Some(setting.node.place);
    match content::read(&path, Most::NAMED) {
        Err(error) => {
            found.add(place, &setting.key, format_args!("the file {} cannot be read: {error}", path.display()))
        }
        Ok(text) => match Keys::parse(&text) {
            Ok(keys) => return Some(keys),
            Err(error) => found.add(place, &setting.key, format_args!("the file {error}")),
        },
    }
    None
}

fn url(own: &Section<'_>, found: &mut Found) -> Option<Url> {
    own.parse("jwks_url", found, |text| match Url::parse(text) {
        Ok(url) if url.is_exposed() => {
            Err("is plain http to another machine, where anybody on the way could give keys: use https".to_owned())
        }
        Ok(url) => Ok(url),
        Err(error) => Err(error.to_string()),
    })
}
