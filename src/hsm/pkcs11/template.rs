//! Attributes for a call, with the values that they point to.

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_BBOOL, CK_FALSE, CK_TRUE, CK_ULONG, CKA_CLASS, CKA_DECRYPT,
    CKA_DERIVE, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID, CKA_LABEL, CKA_MODIFIABLE, CKA_PRIVATE,
    CKA_SENSITIVE, CKA_SIGN, CKA_TOKEN, CKA_UNWRAP, CKA_VERIFY, CKA_WRAP, CKA_WRAP_WITH_TRUSTED,
    CKO_SECRET_KEY,
};
use zeroize::Zeroizing;

use crate::hsm::backend::{Leaves, NewKey};

/// A template under construction. Its values are zeroized: one may be key material.
#[derive(Default)]
pub(super) struct Template(Vec<(CK_ATTRIBUTE_TYPE, Value)>);

enum Value {
    Bytes(Zeroizing<Vec<u8>>),
    /// Of a template within the template (`CKA_UNWRAP_TEMPLATE`).
    Nested(Template, Vec<CK_ATTRIBUTE>),
}

impl Template {
    /// What every key of ours has in common. Every usage is set: modules differ in what they assume.
    pub(super) fn of(new: &NewKey<'_>) -> Self {
        let may_leave = new.leaves == Leaves::UnderTrusted;
        let template = Self::default()
            .number(CKA_CLASS, CKO_SECRET_KEY)
            .bytes(CKA_LABEL, new.label.as_bytes())
            .bytes(CKA_ID, new.state.to_string().as_bytes())
            .flags(&[CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_MODIFIABLE], true)
            .flag(CKA_EXTRACTABLE, may_leave)
            .flag(CKA_ENCRYPT, new.usage.encrypt)
            .flag(CKA_DECRYPT, new.usage.decrypt)
            .flags(&[CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE], false);
        // Named only where it matters: not every module knows it.
        if may_leave { template.flag(CKA_WRAP_WITH_TRUSTED, true) } else { template }
    }

    pub(super) fn flag(self, kind: CK_ATTRIBUTE_TYPE, on: bool) -> Self {
        let value: CK_BBOOL = if on { CK_TRUE } else { CK_FALSE };
        self.bytes(kind, &[value])
    }

    pub(super) fn flags(self, kinds: &[CK_ATTRIBUTE_TYPE], on: bool) -> Self {
        kinds.iter().fold(self, |template, &kind| template.flag(kind, on))
    }

    pub(super) fn number(self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn bytes(mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        self.0.push((kind, Value::Bytes(Zeroizing::new(value.to_vec()))));
        self
    }

    pub(super) fn nested(mut self, kind: CK_ATTRIBUTE_TYPE, template: Self) -> Self {
        self.0.push((kind, Value::Nested(template, Vec::new())));
        self
    }

    /// The attributes; they point into this template, which has to outlive their use.
    pub(super) fn attributes(&mut self) -> Vec<CK_ATTRIBUTE> {
        let attribute = |(kind, value): &mut (CK_ATTRIBUTE_TYPE, Value)| {
            let (pointer, length) = match value {
                Value::Bytes(bytes) => (bytes.as_mut_ptr().cast(), bytes.len()),
                Value::Nested(template, attributes) => {
                    *attributes = template.attributes();
                    let length = attributes.len() * size_of::<CK_ATTRIBUTE>();
                    (attributes.as_mut_ptr().cast(), length)
                }
            };
            CK_ATTRIBUTE { type_: *kind, pValue: pointer, ulValueLen: length as CK_ULONG }
        };
        self.0.iter_mut().map(attribute).collect()
    }
}
