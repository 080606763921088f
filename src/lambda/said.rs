//! What operators are told of AWS's own words: its code, and of the rest nothing that a call carried or was signed with.
//!
//! AWS quotes: a payload that it cannot read, headers that it would have signed otherwise, a value that it refuses. And
//! what answers in its place, such as a proxy, says what it likes. So words are taken of who names a code, up to where
//! they may begin to quote.

use super::classify;
use crate::error::Kind;

/// The most bytes of AWS's words, and of its code.
const MOST: usize = 300;
const MOST_CODE: usize = 64;

/// A refusal by its code and message, to stand behind `it answered 403`.
pub(super) fn refusal(status: u16, code: &str, message: &str) -> String {
    let is_code = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if code.is_empty() || code.len() > MOST_CODE || !code.bytes().all(is_code) {
        return "without an AWS error code".to_owned();
    }
    match classify::kind(status, code) {
        // Which token cannot be read is a piece of the payload, and nothing marks where it begins.
        Kind::InvalidRequest => match place(message) {
            Some((line, column)) => format!("{code} at line {line} column {column}"),
            None => code.to_owned(),
        },
        // Behind the first sentence there may be all that was signed, a session's token in it.
        Kind::CredentialsRejected => join(code, words(message).split(". ").next().unwrap_or_default()),
        _ => join(code, words(message)),
    }
}

/// The words of one line before anything that may quote: a backtick is none, as only the SDK's own words have them.
pub(super) fn words(text: &str) -> &str {
    let mut before = ' ';
    let end = text.find(|character: char| {
        let opens = match character {
            '"' | '“' | '‘' | '[' | '{' | '<' => true,
            // Not the one of `the function's`.
            '\'' => !before.is_alphanumeric(),
            other => other.is_control(),
        };
        before = character;
        opens
    });
    let end = end.unwrap_or(text.len()).min(text.floor_char_boundary(MOST));
    text.get(..end).unwrap_or_default().trim_end_matches([' ', ':', ',', '('])
}

fn join(code: &str, words: &str) -> String {
    if words.is_empty() { code.to_owned() } else { format!("{code}: {words}") }
}

/// Where a parser stopped, by the end of what it says: `line: 1, column: 10]`.
fn place(message: &str) -> Option<(u32, u32)> {
    let (rest, column) = message.trim_end().strip_suffix(']')?.rsplit_once(", column: ")?;
    let (_, line) = rest.rsplit_once("line: ")?;
    // No payload has more of either, and a number that is part of one may have.
    let number = |text: &str| text.parse().ok().filter(|number| *number < 10_000_000);
    Some((number(line)?, number(column)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSIGNED: &str = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key \
                            and signing method. Consult the service documentation for details.\n\nThe Canonical String for this \
                            request should have been\n'POST\n/x\n\nx-amz-security-token:SECRET\n'\n\nThe String-to-Sign should have \
                            been\n'AWS4-HMAC-SHA256\nSECRET'\n";

    #[test]
    fn codes_and_words_are_told_and_nothing_that_is_quoted() {
        let mismatch = "The request signature we calculated does not match the signature you provided";
        let denied = "User: arn:aws:sts::123456789012:assumed-role/x/y is not authorized to perform: lambda:InvokeFunction on \
                      resource: arn:aws:lambda:us-east-1:123456789012:function:f because no identity-based policy allows the \
                      lambda:InvokeFunction action";
        let unread = "Could not parse request body into json: Unrecognized token 'SECRET': was expecting (JSON String)\n at \
                      [Source: (byte[])\"SECRET=1; line: 4111111111111111, column: 2]\"; line: 1, column: 10]";
        for (status, code, message, told) in [
            (403, "InvalidSignatureException", UNSIGNED, format!("InvalidSignatureException: {mismatch}")),
            (403, "SignatureDoesNotMatch", UNSIGNED, format!("SignatureDoesNotMatch: {mismatch}")),
            (403, "SomethingNew", &UNSIGNED.replace('\n', " "), {
                let rest = "Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";
                format!("SomethingNew: {mismatch}. {rest}  The Canonical String for this request should have been")
            }),
            (
                403,
                "InvalidSignatureException",
                "Signature expired: 20250101T000000Z is now earlier than 20250101T001000Z (20250101T001500Z - 5 min.)",
                "InvalidSignatureException: Signature expired: 20250101T000000Z is now earlier than 20250101T001000Z \
                 (20250101T001500Z - 5 min.)"
                    .to_owned(),
            ),
            (403, "AccessDeniedException", denied, format!("AccessDeniedException: {denied}")),
            (
                400,
                "InvalidRequestContentException",
                unread,
                "InvalidRequestContentException at line 1 column 10".to_owned(),
            ),
            (400, "InvalidRequestContentException", "Unexpected SECRET", "InvalidRequestContentException".to_owned()),
            (
                400,
                "SerializationException",
                "x [Source: SECRET; line: 1, column: 4111111111111111]",
                "SerializationException".to_owned(),
            ),
            (
                502,
                "KMSAccessDeniedException",
                "Check the function's key settings. KMS Message: 'SECRET'",
                "KMSAccessDeniedException: Check the function's key settings. KMS Message".to_owned(),
            ),
            (500, "ServiceException", "", "ServiceException".to_owned()),
            (503, "", "SECRET", "without an AWS error code".to_owned()),
            (503, "SECRET <html>", "SECRET", "without an AWS error code".to_owned()),
            (400, &"X".repeat(65), "SECRET", "without an AWS error code".to_owned()),
        ] {
            assert_eq!(refusal(status, code, message), told, "{message}");
        }
        let long = refusal(400, "InvalidParameterValueException", &"ä".repeat(10_000));
        assert!(long.len() < 350, "{}", long.len());
    }
}
