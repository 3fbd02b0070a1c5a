//! The names of the schema, and facts as Cedar's entities.

use std::collections::BTreeMap;

use cedar_policy::{
    Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Value, Schema,
};

use super::arn::{AccountId, Home, Principal};
use crate::names::{ExternalKeyId, KeystoreName};
use crate::wire::route::KeyOperation;

/// The schema that every policy is validated against.
pub const SCHEMA: &str = include_str!("xks.cedarschema");

/// The schema, read.
pub(super) fn schema() -> Schema {
    let (schema, _warnings) =
        Schema::from_cedarschema_str(SCHEMA).expect("the schema is a constant, and tested");
    schema
}

/// The kinds of entities, which are the entity types of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Group,
    Account,
    AccountRoot,
    User,
    Role,
    AssumedRole,
    FederatedUser,
    ServicePrincipal,
    AwsInternal,
    Unrecognized,
    Keystore,
    ExternalKey,
    Metadata,
}

impl Kind {
    pub(super) const ALL: [Self; 13] = [
        Self::Group,
        Self::Account,
        Self::AccountRoot,
        Self::User,
        Self::Role,
        Self::AssumedRole,
        Self::FederatedUser,
        Self::ServicePrincipal,
        Self::AwsInternal,
        Self::Unrecognized,
        Self::Keystore,
        Self::ExternalKey,
        Self::Metadata,
    ];

    /// Its name in the schema.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Group => "xks::Group",
            Self::Account => "xks::Account",
            Self::AccountRoot => "xks::AccountRoot",
            Self::User => "xks::User",
            Self::Role => "xks::Role",
            Self::AssumedRole => "xks::AssumedRole",
            Self::FederatedUser => "xks::FederatedUser",
            Self::ServicePrincipal => "xks::ServicePrincipal",
            Self::AwsInternal => "xks::AwsInternal",
            Self::Unrecognized => "xks::Unrecognized",
            Self::Keystore => "xks::Keystore",
            Self::ExternalKey => "xks::ExternalKey",
            Self::Metadata => "xks::Metadata",
        }
    }

    /// The kind of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What the ids of its entities look like.
    pub(super) fn form_of_ids(self) -> &'static str {
        match self {
            Self::Group => "a name of your choice",
            Self::Account => "12 digits",
            Self::AccountRoot => "arn:aws:iam::111122223333:root",
            Self::User => "arn:aws:iam::111122223333:user/NAME",
            Self::Role => "arn:aws:iam::111122223333:role/NAME",
            Self::AssumedRole => "arn:aws:sts::111122223333:assumed-role/ROLE/SESSION",
            Self::FederatedUser => "arn:aws:sts::111122223333:federated-user/NAME",
            Self::ServicePrincipal => "SERVICE.amazonaws.com",
            Self::AwsInternal => "AWS Internal",
            Self::Unrecognized => "nothing: `principal is xks::Unrecognized` means all of them",
            Self::Keystore => "the name of a key store",
            Self::ExternalKey => "KEYSTORE/EXTERNAL-KEY-ID",
            Self::Metadata => "nothing: `context.metadata` is the request's",
        }
    }

    fn of(principal: &Principal) -> Self {
        match principal {
            Principal::AccountRoot(_) => Self::AccountRoot,
            Principal::User { .. } => Self::User,
            Principal::Role { .. } => Self::Role,
            Principal::AssumedRole { .. } => Self::AssumedRole,
            Principal::FederatedUser { .. } => Self::FederatedUser,
            Principal::ServicePrincipal(_) => Self::ServicePrincipal,
            Principal::AwsInternal => Self::AwsInternal,
            Principal::Unrecognized => Self::Unrecognized,
        }
    }
}

/// The actions of requests: the operation, that of KMS which led to it, and the id. `None` is whatever
/// else KMS names.
pub(super) const ACTIONS: [(KeyOperation, Option<&str>, &str); 11] = [
    (KeyOperation::Metadata, Some("CreateKey"), "describe/kms:CreateKey"),
    (KeyOperation::Metadata, Some("DescribeKey"), "describe/kms:DescribeKey"),
    (KeyOperation::Metadata, None, "describe/other"),
    (KeyOperation::Encrypt, Some("Encrypt"), "encrypt/kms:Encrypt"),
    (KeyOperation::Encrypt, Some("GenerateDataKey"), "encrypt/kms:GenerateDataKey"),
    (
        KeyOperation::Encrypt,
        Some("GenerateDataKeyWithoutPlaintext"),
        "encrypt/kms:GenerateDataKeyWithoutPlaintext",
    ),
    (KeyOperation::Encrypt, Some("ReEncrypt"), "encrypt/kms:ReEncrypt"),
    (KeyOperation::Encrypt, None, "encrypt/other"),
    (KeyOperation::Decrypt, Some("Decrypt"), "decrypt/kms:Decrypt"),
    (KeyOperation::Decrypt, Some("ReEncrypt"), "decrypt/kms:ReEncrypt"),
    (KeyOperation::Decrypt, None, "decrypt/other"),
];

/// The id of a request's action.
pub(super) fn action_id(operation: KeyOperation, kms: &str) -> &'static str {
    let mut fitting = ACTIONS
        .iter()
        .filter(|(of, known, _)| *of == operation && known.is_none_or(|known| known == kms));
    let (_, _, id) = fitting.next().expect("each operation has an action for the rest");
    id
}

/// The entity types, parsed once.
#[derive(Debug)]
pub(super) struct Vocabulary {
    types: BTreeMap<Kind, EntityTypeName>,
    action: EntityTypeName,
}

impl Vocabulary {
    pub(super) fn new() -> Self {
        let parsed = |name: &str| name.parse().expect("names of the schema are names");
        let types = Kind::ALL.into_iter().map(|kind| (kind, parsed(kind.name()))).collect();
        Self { types, action: parsed("xks::Action") }
    }

    pub(super) fn uid(&self, kind: Kind, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.types[&kind].clone(), EntityId::new(id))
    }

    /// The action with this id.
    pub(super) fn action(&self, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.action.clone(), EntityId::new(id))
    }

    pub(super) fn account(&self, account: &AccountId) -> EntityUid {
        self.uid(Kind::Account, account.as_str())
    }

    /// A principal as it is without the operator's groups: its id, what it is in, what it has.
    pub(super) fn principal(&self, principal: &Principal) -> Described {
        let id = principal_id(principal);
        let uid = self.uid(Kind::of(principal), &id);
        let mut parents = Vec::new();
        let mut attributes = Vec::new();
        if let Some(Home { partition, account }) = principal.home() {
            let account = self.account(account);
            attributes.push(("partition", text(partition)));
            attributes.push(("account", Value::new_entity_uid(account.clone())));
            parents.push(account);
        }
        let role = |home: &Home, name: &str| self.uid(Kind::Role, &role_arn(home, "", name));
        match principal {
            Principal::User { path, name, .. } => {
                attributes.extend([("path", text(path)), ("name", text(name))]);
            }
            Principal::Role { home, path, name } => {
                attributes.extend([("path", text(path)), ("name", text(name))]);
                // Names of roles are unique in an account, whatever the path.
                parents.extend((!path.is_empty()).then(|| role(home, name)));
            }
            Principal::AssumedRole { home, role: name, session } => {
                attributes.extend([("role", text(name)), ("session", text(session))]);
                parents.push(role(home, name));
            }
            Principal::FederatedUser { name, .. } | Principal::ServicePrincipal(name) => {
                attributes.push(("name", text(name)));
            }
            Principal::AccountRoot(_) | Principal::AwsInternal | Principal::Unrecognized => {}
        }
        Described { uid, parents, attributes }
    }

    pub(super) fn keystore(&self, name: &KeystoreName, accounts: &[AccountId]) -> Described {
        let accounts = accounts.iter().map(|account| Value::new_entity_uid(self.account(account)));
        let attributes = vec![("accounts", Value::new_set(accounts))];
        Described { uid: self.uid(Kind::Keystore, name.as_str()), parents: Vec::new(), attributes }
    }

    pub(super) fn external_key(&self, keystore: &KeystoreName, id: &ExternalKeyId) -> Described {
        let uid = self.uid(Kind::ExternalKey, &format!("{keystore}/{id}"));
        let keystore = self.uid(Kind::Keystore, keystore.as_str());
        let own = Value::new_entity_uid(keystore.clone());
        let attributes = vec![("id", text(id.as_str())), ("keystore", own)];
        Described { uid, parents: vec![keystore], attributes }
    }

    /// What an entity of this kind and id is by itself; `None` if no request has such a one.
    pub(super) fn describe(&self, kind: Kind, id: &str) -> Option<Described> {
        let plain = || Described { uid: self.uid(kind, id), parents: vec![], attributes: vec![] };
        match kind {
            Kind::Group => Some(plain()),
            Kind::Account => id.parse::<AccountId>().is_ok().then(plain),
            Kind::ExternalKey => {
                let (keystore, key) = id.split_once('/')?;
                Some(self.external_key(&keystore.parse().ok()?, &key.parse().ok()?))
            }
            // Its accounts are for the configuration to say.
            Kind::Keystore => id.parse::<KeystoreName>().is_ok().then(plain),
            Kind::Unrecognized | Kind::Metadata => None,
            _ => {
                let principal = Principal::parse(id);
                (Kind::of(&principal) == kind).then(|| self.principal(&principal))
            }
        }
    }
}

/// An entity before groups and tags.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) uid: EntityUid,
    pub(super) parents: Vec<EntityUid>,
    pub(super) attributes: Vec<(&'static str, Value)>,
}

impl Described {
    /// The entity, in these groups as well and with these tags.
    pub(super) fn entity<'a>(
        self,
        groups: impl IntoIterator<Item = EntityUid>,
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Entity {
        let attributes = self.attributes.into_iter().map(|(name, value)| (name.to_owned(), value));
        let parents = self.parents.into_iter().chain(groups);
        let tags = tags.into_iter().map(|(name, value)| (name.to_owned(), text(value)));
        Entity::new_with_tags(self.uid, attributes, parents, tags)
            .expect("texts, entities and sets of them need no evaluation that could fail")
    }
}

pub(super) fn text(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn role_arn(home: &Home, path: &str, name: &str) -> String {
    format!("arn:{}:iam::{}:role/{path}{name}", home.partition, home.account.as_str())
}

/// The text that a principal was read from, made from its parts.
fn principal_id(principal: &Principal) -> String {
    let arn = |service: &str, home: &Home, rest: String| {
        format!("arn:{}:{service}::{}:{rest}", home.partition, home.account.as_str())
    };
    match principal {
        Principal::AccountRoot(home) => arn("iam", home, "root".to_owned()),
        Principal::User { home, path, name } => arn("iam", home, format!("user/{path}{name}")),
        Principal::Role { home, path, name } => role_arn(home, path, name),
        Principal::AssumedRole { home, role, session } => {
            arn("sts", home, format!("assumed-role/{role}/{session}"))
        }
        Principal::FederatedUser { home, name } => {
            arn("sts", home, format!("federated-user/{name}"))
        }
        Principal::ServicePrincipal(name) => name.to_string(),
        Principal::AwsInternal => "AWS Internal".to_owned(),
        Principal::Unrecognized => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_that_of_the_schema() {
        let schema = schema();
        let mut names: Vec<_> = schema.entity_types().map(ToString::to_string).collect();
        names.sort();
        let mut ours: Vec<_> = Kind::ALL.map(|kind| kind.name().to_owned()).to_vec();
        ours.sort();
        assert_eq!(names, ours);
        let vocabulary = Vocabulary::new();
        let mut actions: Vec<_> = schema.actions().cloned().collect();
        // A group has no slash in its name.
        actions.retain(|action| action.id().unescaped().contains('/'));
        actions.sort();
        let mut ours: Vec<_> = ACTIONS.map(|(_, _, id)| vocabulary.action(id)).to_vec();
        ours.sort();
        assert_eq!(actions, ours);
        for (operation, kms, id) in ACTIONS {
            assert_eq!(action_id(operation, kms.unwrap_or("BulkNew")), id);
        }
        assert_eq!(action_id(KeyOperation::Decrypt, "Encrypt"), "decrypt/other");
    }

    #[test]
    fn an_id_is_what_kms_sent_p_80() {
        let vocabulary = Vocabulary::new();
        for text in [
            "arn:aws:iam::111122223333:root",
            "arn:aws-cn:iam::111122223333:user/a/b/Alice",
            "arn:aws:iam::111122223333:role/Backup",
            "arn:aws:iam::111122223333:role/x/y/Backup",
            "arn:aws:sts::111122223333:assumed-role/Backup/s",
            "arn:aws:sts::111122223333:federated-user/Bob",
            "ec2.amazonaws.com",
            "AWS Internal",
        ] {
            let described = vocabulary.principal(&Principal::parse(text));
            assert_eq!(described.uid.id().unescaped(), text);
        }
        // What is not understood is not passed on.
        let described = vocabulary.principal(&Principal::parse("arn:aws:iam::1:root"));
        assert_eq!(described.uid.id().unescaped(), "");
    }
}
