//! Who called KMS and which KMS key was meant, read from the texts that KMS sends.
//!
//! What is read here is exact: letter case counts, nothing is trimmed, and a text of which any part
//! is not as it should be is not read at all. So no policy can match by chance what it does not know.

use crate::names::Region;

/// An AWS account: twelve digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Box<str>);

impl AccountId {
    /// The twelve digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an AWS account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an AWS account has 12 digits")]
pub struct NotAnAccount;

impl std::str::FromStr for AccountId {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        let is_account = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if is_account { Ok(Self(text.into())) } else { Err(NotAnAccount) }
    }
}

/// Where a principal or key belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// `aws`, `aws-cn`, `aws-us-gov` and so on.
    pub partition: Box<str>,
    /// The account.
    pub account: AccountId,
}

/// `awsPrincipalArn`, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// `arn:aws:iam::111122223333:root`
    AccountRoot(Home),
    /// `arn:aws:iam::111122223333:user/path/Alice`
    User {
        /// Its account.
        home: Home,
        /// What stands before the name, with a slash at its end; mostly empty.
        path: Box<str>,
        /// The last part.
        name: Box<str>,
    },
    /// `arn:aws:iam::111122223333:role/path/Backup`
    Role {
        /// Its account.
        home: Home,
        /// What stands before the name, with a slash at its end; mostly empty.
        path: Box<str>,
        /// The last part.
        name: Box<str>,
    },
    /// `arn:aws:sts::111122223333:assumed-role/Backup/session`
    AssumedRole {
        /// Its account.
        home: Home,
        /// The role's name, without path: KMS does not say more.
        role: Box<str>,
        /// The session's name.
        session: Box<str>,
    },
    /// `arn:aws:sts::111122223333:federated-user/Bob`
    FederatedUser {
        /// Its account.
        home: Home,
        /// Its name.
        name: Box<str>,
    },
    /// `ec2.amazonaws.com`: a service that calls KMS in its own name. It has no account.
    ServicePrincipal(Box<str>),
    /// `AWS Internal`, which has no account either.
    AwsInternal,
    /// Anything else. The text is left behind on purpose.
    Unrecognized,
}

impl Principal {
    /// Reads `awsPrincipalArn`; whatever it is, it is a principal.
    pub fn parse(text: &str) -> Self {
        match text {
            "AWS Internal" => Self::AwsInternal,
            _ => arn(text).unwrap_or_else(|| service(text).unwrap_or(Self::Unrecognized)),
        }
    }

    /// Its account, where it has one.
    pub fn home(&self) -> Option<&Home> {
        match self {
            Self::AccountRoot(home)
            | Self::User { home, .. }
            | Self::Role { home, .. }
            | Self::AssumedRole { home, .. }
            | Self::FederatedUser { home, .. } => Some(home),
            Self::ServicePrincipal(_) | Self::AwsInternal | Self::Unrecognized => None,
        }
    }
}

/// An ARN of IAM or STS.
fn arn(text: &str) -> Option<Principal> {
    let Parts { home, service, region: "", resource } = Parts::of(text)? else { return None };
    let (kind, rest) = match resource.split_once('/') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (resource, None),
    };
    match (service, kind, rest) {
        ("iam", "root", None) => Some(Principal::AccountRoot(home)),
        ("iam", "user", Some(rest)) => {
            let (path, name) = with_path(rest)?;
            Some(Principal::User { home, path, name })
        }
        ("iam", "role", Some(rest)) => {
            let (path, name) = with_path(rest)?;
            Some(Principal::Role { home, path, name })
        }
        ("sts", "assumed-role", Some(rest)) => {
            let (role, session) = rest.split_once('/')?;
            // EC2's own roles have a colon: `aws:ec2-instance`.
            let is_role = role.split(':').all(is_name);
            let whole = is_role && is_name(session);
            whole.then(|| Principal::AssumedRole {
                home,
                role: role.into(),
                session: session.into(),
            })
        }
        ("sts", "federated-user", Some(name)) => {
            is_name(name).then(|| Principal::FederatedUser { home, name: name.into() })
        }
        _ => None,
    }
}

/// A service principal: `s3.amazonaws.com`, `ec2.cn-north-1.amazonaws.com.cn`.
fn service(text: &str) -> Option<Principal> {
    let name = text.strip_suffix(".cn").unwrap_or(text).strip_suffix(".amazonaws.com")?;
    let is_label = |label: &str| {
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(is_allowed)
    };
    name.split('.').all(is_label).then(|| Principal::ServicePrincipal(text.into()))
}

/// `kmsKeyArn`: `arn:aws:kms:us-east-2:111122223333:key/1234abcd-...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArn {
    /// Its account.
    pub home: Home,
    /// Its Region.
    pub region: Region,
    /// The KMS key id: a UUID, or one that begins with `mrk-`.
    pub id: Box<str>,
}

impl KeyArn {
    /// Reads `kmsKeyArn`; `None` if it is not the ARN of a KMS key.
    pub fn parse(text: &str) -> Option<Self> {
        let Parts { home, service: "kms", region, resource } = Parts::of(text)? else {
            return None;
        };
        // The specification's examples of Encrypt and Decrypt have a slash before the word, too.
        let id = resource.strip_prefix('/').unwrap_or(resource).strip_prefix("key/")?;
        let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let region = region.parse().ok()?;
        is_id.then(|| Self { home, region, id: id.into() })
    }
}

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`
struct Parts<'a> {
    home: Home,
    service: &'a str,
    region: &'a str,
    resource: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        let ("arn", partition, service) = (next()?, next()?, next()?) else { return None };
        let (region, account, resource) = (next()?, next()?.parse().ok()?, next()?);
        let is_partition = partition == "aws"
            || partition.strip_prefix("aws-").is_some_and(|rest| {
                let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                rest.split('-').all(|word| !word.is_empty() && word.bytes().all(is_allowed))
            });
        let home = Home { partition: partition.into(), account };
        is_partition.then_some(Self { home, service, region, resource })
    }
}

/// Path and name of a user or role. A path may hold any printable ASCII character.
fn with_path(text: &str) -> Option<(Box<str>, Box<str>)> {
    let (path, name) = match text.rfind('/') {
        Some(slash) => text.split_at(slash + 1),
        None => ("", text),
    };
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    let is_path = path.is_empty() || path.trim_end_matches('/').split('/').all(is_part);
    // One slash ends the path, not several.
    let whole = is_path && !path.ends_with("//") && is_name(name);
    whole.then(|| (path.into(), name.into()))
}

/// A name as IAM and STS allow it.
fn is_name(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn home(partition: &str) -> Home {
        Home { partition: partition.into(), account: "111122223333".parse().unwrap() }
    }

    #[test]
    fn principals_have_kinds_p_80() {
        let home = || home("aws");
        let user = |path: &str, name: &str| Principal::User {
            home: home(),
            path: path.into(),
            name: name.into(),
        };
        let role = |path: &str, name: &str| Principal::Role {
            home: home(),
            path: path.into(),
            name: name.into(),
        };
        let session = |role: &str, session: &str| Principal::AssumedRole {
            home: home(),
            role: role.into(),
            session: session.into(),
        };
        for (text, expected) in [
            ("arn:aws:iam::111122223333:root", Principal::AccountRoot(home())),
            ("arn:aws:iam::111122223333:user/Alice", user("", "Alice")),
            ("arn:aws:iam::111122223333:user/a/b/Alice", user("a/b/", "Alice")),
            ("arn:aws:iam::111122223333:role/Backup", role("", "Backup")),
            (
                "arn:aws:iam::111122223333:role/aws-service-role/ec2:x!/Backup",
                role("aws-service-role/ec2:x!/", "Backup"),
            ),
            ("arn:aws:sts::111122223333:assumed-role/Backup/i@x", session("Backup", "i@x")),
            (
                "arn:aws:sts::111122223333:assumed-role/aws:ec2-instance/i-0123",
                session("aws:ec2-instance", "i-0123"),
            ),
            (
                "arn:aws:sts::111122223333:federated-user/Bob",
                Principal::FederatedUser { home: home(), name: "Bob".into() },
            ),
            ("ec2.amazonaws.com", Principal::ServicePrincipal("ec2.amazonaws.com".into())),
            (
                "ec2.cn-north-1.amazonaws.com.cn",
                Principal::ServicePrincipal("ec2.cn-north-1.amazonaws.com.cn".into()),
            ),
            ("AWS Internal", Principal::AwsInternal),
        ] {
            assert_eq!(Principal::parse(text), expected, "{text}");
        }
        for partition in ["aws-cn", "aws-us-gov", "aws-iso-b"] {
            let text = format!("arn:{partition}:iam::111122223333:root");
            assert_eq!(
                Principal::parse(&text).home().unwrap().partition.as_ref(),
                partition,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_exact_is_not_read_p_80() {
        for text in [
            "",
            "*",
            "Alice",
            "aws internal",
            "AWS Internal ",
            "AWS%20Internal",
            "arn:aws:iam::111122223333",
            "arn:aws:iam::11112222333:root",
            "arn:aws:iam::1111222233334:root",
            "arn:aws:iam::11112222333x:root",
            "arn:aws:iam::*:root",
            "ARN:aws:iam::111122223333:root",
            "arn:AWS:iam::111122223333:root",
            "arn:aws-:iam::111122223333:root",
            "arn:aws2:iam::111122223333:root",
            "arn::iam::111122223333:root",
            "arn:aws:IAM::111122223333:root",
            "arn:aws:iam:us-east-1:111122223333:root",
            "arn:aws:iam::111122223333:Root",
            "arn:aws:iam::111122223333:root/",
            "arn:aws:iam::111122223333:user",
            "arn:aws:iam::111122223333:user/",
            "arn:aws:iam::111122223333:user//Alice",
            "arn:aws:iam::111122223333:user/a//Alice",
            "arn:aws:iam::111122223333:user/Al ice",
            "arn:aws:iam::111122223333:user/Alice\n",
            "arn:aws:iam::111122223333:user/Ålice",
            "arn:aws:iam::111122223333:user/*",
            "arn:aws:sts::111122223333:assumed-role/Backup",
            "arn:aws:sts::111122223333:assumed-role/Backup/",
            "arn:aws:sts::111122223333:assumed-role/Backup/a/b",
            "arn:aws:sts::111122223333:assumed-role/a::b/c",
            "arn:aws:iam::111122223333:assumed-role/Backup/s",
            "arn:aws:sts::111122223333:user/Alice",
            " arn:aws:iam::111122223333:root",
            "EC2.amazonaws.com",
            ".amazonaws.com",
            "a..amazonaws.com",
            "amazonaws.com",
            "ec2.amazonaws.com.evil.example",
            "evil/ec2.amazonaws.com",
        ] {
            assert_eq!(Principal::parse(text), Principal::Unrecognized, "{text:?}");
        }
    }

    #[test]
    fn key_arns_are_read_p_80() {
        let key = |id: &str| KeyArn {
            home: home("aws"),
            region: "us-east-2".parse().unwrap(),
            id: id.into(),
        };
        for (text, id) in [
            ("arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab", "1234abcd-12ab"),
            ("arn:aws:kms:us-east-2:111122223333:/key/1234abcd-12ab", "1234abcd-12ab"),
            ("arn:aws:kms:us-east-2:111122223333:key/mrk-12", "mrk-12"),
        ] {
            assert_eq!(KeyArn::parse(text), Some(key(id)), "{text}");
        }
        for text in [
            "",
            "arn:aws:kms:us-east-2:111122223333:alias/x",
            "arn:aws:kms:us-east-2:111122223333:key/",
            "arn:aws:kms:us-east-2:111122223333:key/a/b",
            "arn:aws:kms:us-east-2:111122223333:key/a b",
            "arn:aws:kms:us-east-2:111122223333://key/a",
            "arn:aws:kms:us-east-2:111122223333:KEY/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:kms:us-east-2::key/a",
            "arn:aws:iam:us-east-2:111122223333:key/a",
        ] {
            assert_eq!(KeyArn::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn another_letter_case_is_another_principal_p_80(
            name in "[A-Za-z]{1,12}", role: bool, upper: bool
        ) {
            let kind = if role { "role" } else { "user" };
            let arn = |name: &str| format!("arn:aws:iam::111122223333:{kind}/{name}");
            let other = if upper { name.to_uppercase() } else { name.to_lowercase() };
            let same = Principal::parse(&arn(&name)) == Principal::parse(&arn(&other));
            prop_assert_eq!(same, name == other);
        }

        #[test]
        fn no_text_panics_or_is_read_twice(text in "[arnwsim:/0-9*k\u{e9} ]{0,60}") {
            let _ = KeyArn::parse(&text);
            let principal = Principal::parse(&text);
            prop_assert_eq!(&principal, &Principal::parse(&text));
        }
    }
}
