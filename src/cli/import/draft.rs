//! A policy on its way into the file: the texts that the file will have, each of them valid.

use std::time::Duration;

use crate::{
    config::{Fault, Place},
    policy::{Qualifier, Region, Target, function::Reference},
};

/// A policy, and what of it could not be taken over.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    /// Where it stands in the document.
    pub path: String,
    pub place: Place,
    pub draft: Draft,
    pub faults: Vec<Fault>,
    /// What its reader should know, though nothing is lost.
    pub hints: Vec<String>,
    /// Whether the service would take it; what it would not is written as a comment.
    pub whole: bool,
}

/// The settings that importers know.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub title: Option<String>,
    pub description: Option<String>,
    pub function: Option<String>,
    pub qualifier: Option<String>,
    pub region: Option<String>,
    pub keys: Option<Keys>,
    pub role: Option<Role>,
    pub event: Option<&'static str>,
    pub invocation: Option<&'static str>,
    pub log: Option<&'static str>,
    pub timeout: Option<Duration>,
    /// The status that answers a failed function.
    pub unhandled_status: Option<u16>,
    pub endpoint: Option<String>,
    pub sts_endpoint: Option<String>,
}

/// The environment variables that have the keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// A role to assume.
#[derive(Debug)]
pub(super) struct Role {
    pub arn: String,
    pub external_id: Option<String>,
    pub session_name: Option<String>,
}

impl Draft {
    /// What is wrong with function, region and qualifier together: the setting, and what to do about it.
    pub(super) fn contradiction(&self) -> Option<(&'static str, String)> {
        let Some(function) = &self.function else {
            return Some(("function", "is missing: name the function".to_owned()));
        };
        let reference = Reference::parse(function).ok()?;
        let region = self.region.as_deref().map(Region::parse).transpose().ok()?;
        let qualifier = self.qualifier.as_deref().map(Qualifier::parse).transpose().ok()?;
        let error = Target::new(reference, region, qualifier, None).err()?;
        Some((error.property(), error.to_string()))
    }
}
