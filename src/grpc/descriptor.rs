//! The contract as gateways that transcode read it.

use crate::pb;

/// The descriptor set of the contract, its own file first: some gateways read only that.
///
/// With `errors` it is the set for Envoy: it also has the types of an error's details, without which no gateway can tell
/// them, and as Envoy builds it file by file, each file stands behind those that it imports.
pub fn set(errors: bool) -> Vec<u8> {
    if !errors {
        return pb::CONTRACT.to_vec();
    }
    // A descriptor set is a list: two behind each other are one.
    [pb::CONTRACT_LAST, tonic_types::pb::FILE_DESCRIPTOR_SET].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn the_files_are_in_the_order_that_is_wanted_and_say_how_the_service_is_called_by_http() {
        for errors in [false, true] {
            let set = set(errors);
            let files = <prost_types::FileDescriptorSet as prost::Message>::decode(&set[..]).unwrap();
            let place = files.file.iter().position(|file| file.name() == "lambdapolicy/v1/policy.proto").unwrap();
            assert_eq!(place == 0, !errors);
            let known = |at: usize, name: &String| files.file[..at].iter().any(|file| file.name() == name);
            let behind =
                files.file.iter().enumerate().all(|(at, file)| file.dependency.iter().all(|name| known(at, name)));
            assert_eq!(behind, errors, "each file stands behind what it imports");
            let mut names: Vec<_> = files.file.iter().map(prost_types::FileDescriptorProto::name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "no file twice: {names:?}");

            let pool = DescriptorPool::decode(&set[..]).unwrap();
            let service = pool.get_service_by_name("lambdapolicy.v1.PolicyService").unwrap();
            let method = service.methods().find(|method| method.name() == "ExecutePolicy").unwrap();
            let option = pool.get_extension_by_name("google.api.http").unwrap();
            let rule = method.options().get_extension(&option).into_owned();
            let path = rule.as_message().unwrap().get_field_by_name("post").unwrap().into_owned();
            assert_eq!(path.as_str(), Some("/v1/policies/{policy}:execute"));
            assert_eq!(pool.get_message_by_name("google.rpc.ErrorInfo").is_some(), errors);
        }
    }
}
