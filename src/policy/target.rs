//! Which function a policy invokes, where, and in which version.

use std::fmt;

use super::{
    function::{Function, Qualifier, Reference},
    region::{self, Region},
};

/// A function, its region and its version or alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The function, without a suffix.
    pub function: Function,
    /// Where it is.
    pub region: Region,
    /// The version or alias; Lambda takes `$LATEST` if there is none.
    pub qualifier: Option<Qualifier>,
}

/// Why a policy's function, region and qualifier do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The ARN's region is not the policy's.
    Region {
        /// The region of the ARN.
        arn: String,
        /// The region of the policy.
        policy: Region,
    },
    /// Neither the policy nor the ARN nor the defaults name a region.
    NoRegion,
    /// The ARN's region is none.
    ArnRegion(region::Error),
    /// The function's suffix is not the policy's qualifier.
    Qualifier {
        /// The suffix of the function.
        suffix: Qualifier,
        /// The policy's qualifier.
        policy: Qualifier,
    },
}

impl Target {
    /// Puts a policy's properties together: the region is the policy's, else the ARN's, else the default.
    ///
    /// # Errors
    /// If the ARN's region or the function's suffix contradicts the policy, or there is no region.
    pub fn new(
        reference: Reference,
        region: Option<Region>,
        qualifier: Option<Qualifier>,
        default_region: Option<&Region>,
    ) -> Result<Self, Error> {
        let arn = reference.region.as_deref().map(Region::parse).transpose().map_err(Error::ArnRegion)?;
        let region = match (region, arn) {
            (Some(policy), Some(arn)) if policy != arn => {
                return Err(Error::Region { arn: arn.to_string(), policy });
            }
            (Some(region), _) | (None, Some(region)) => region,
            (None, None) => default_region.cloned().ok_or(Error::NoRegion)?,
        };
        let qualifier = match (qualifier, reference.qualifier) {
            (Some(policy), Some(suffix)) if policy != suffix => {
                return Err(Error::Qualifier { suffix, policy });
            }
            (policy, suffix) => policy.or(suffix),
        };
        Ok(Self { function: reference.function, region, qualifier })
    }
}

impl Error {
    /// The property that has to change.
    pub fn property(&self) -> &'static str {
        match self {
            Self::Region { .. } | Self::NoRegion => "region",
            Self::ArnRegion(_) => "function",
            Self::Qualifier { .. } => "qualifier",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region { arn, policy } => {
                write!(f, "is {policy}, but the function's ARN says {arn}: leave it out, or make them agree")
            }
            Self::NoRegion => {
                f.write_str("is missing: name one here or under `defaults`, or give the function as an ARN")
            }
            Self::ArnRegion(error) => write!(f, "names a region that {error}"),
            Self::Qualifier { suffix, policy } => {
                write!(f, "is {policy}, but the function says {suffix}: leave one out, or make them agree")
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:lambda:eu-west-1:123456789012:function:orders:live";

    fn target(function: &str, region: &str, qualifier: &str, default: &str) -> Result<Target, Error> {
        let region_of = |text: &str| (!text.is_empty()).then(|| Region::parse(text).unwrap());
        Target::new(
            Reference::parse(function).unwrap(),
            region_of(region),
            (!qualifier.is_empty()).then(|| Qualifier::parse(qualifier).unwrap()),
            region_of(default).as_ref(),
        )
    }

    #[test]
    fn the_region_is_the_policys_then_the_arns_then_the_default() {
        for (what, function, region, default, found) in [
            ("the policy's before the default", "orders", "us-west-2", "us-east-1", "us-west-2"),
            ("the ARN's before the default", ARN, "", "us-east-1", "eu-west-1"),
            ("both agree", ARN, "eu-west-1", "", "eu-west-1"),
            ("the default", "orders", "", "us-east-1", "us-east-1"),
        ] {
            assert_eq!(target(function, region, "", default).unwrap().region.as_str(), found, "{what}");
        }
    }

    #[test]
    fn contradictions_are_errors() {
        for (what, function, region, qualifier, property) in [
            ("two regions", ARN, "us-east-1", "", "region"),
            ("no region", "orders", "", "", "region"),
            ("two qualifiers", ARN, "", "canary", "qualifier"),
        ] {
            assert_eq!(target(function, region, qualifier, "").unwrap_err().property(), property, "{what}");
        }
    }

    #[test]
    fn a_suffix_and_an_equal_qualifier_agree() {
        assert_eq!(target(ARN, "", "live", "").unwrap().qualifier.unwrap().as_str(), "live");
    }
}
