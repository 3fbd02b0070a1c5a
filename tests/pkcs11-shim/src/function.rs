//! The functions of PKCS#11 3.0 as values: index of a counter, key of a script's rules.

use crate::table::for_each_forwarded_function;

macro_rules! define_functions {
    (
        {$(fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*}
        {$(fn $newer:ident($($newer_arg:ident: $newer_type:ty),* $(,)?);)*}
    ) => {
        /// A function of PKCS#11 3.0.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(
            non_camel_case_types,
            clippy::enum_variant_names,
            reason = "the names of PKCS#11, unchanged"
        )]
        pub(crate) enum Function {
            $($name,)*
            C_GetFunctionList,
            $($newer,)*
            C_GetInterfaceList,
            C_GetInterface,
        }

        impl Function {
            /// All of them, each at its own index.
            pub(crate) const ALL: &'static [Self] = &[
                $(Self::$name,)*
                Self::C_GetFunctionList,
                $(Self::$newer,)*
                Self::C_GetInterfaceList,
                Self::C_GetInterface,
            ];

            /// The name of the C symbol.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::C_GetFunctionList => "C_GetFunctionList",
                    $(Self::$newer => stringify!($newer),)*
                    Self::C_GetInterfaceList => "C_GetInterfaceList",
                    Self::C_GetInterface => "C_GetInterface",
                }
            }
        }
    };
}

for_each_forwarded_function!(define_functions);

impl Function {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Its place in [`Function::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The function of this name, spelt exactly as in PKCS#11.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|function| function.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_at_its_own_index_and_found_by_its_name() {
        for (index, function) in Function::ALL.iter().enumerate() {
            assert_eq!(function.index(), index);
            assert_eq!(Function::named(function.name()), Some(*function));
        }
    }

    #[test]
    fn there_are_as_many_as_the_function_list_has_places() {
        let pointers = size_of::<cryptoki_sys::CK_FUNCTION_LIST_3_0>() / size_of::<usize>();
        assert_eq!(Function::COUNT, pointers - 1, "all but the version at the head of the list");
    }

    #[test]
    fn names_are_exact() {
        assert_eq!(Function::named("c_encrypt"), None);
        assert_eq!(Function::named("Encrypt"), None);
        assert_eq!(Function::named(""), None);
    }
}
