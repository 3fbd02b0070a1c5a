//! Object handles that change their meaning, as they do when a module connects anew.
//!
//! The client is shown the real module's handles until a rule says `renumber`. From then on each
//! object has the handle that the next one had, in the order in which the client first saw them, so
//! an old handle names another object. Handles that the client has not been shown name nothing.

use std::any::Any;
use std::collections::HashMap;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_INVALID_HANDLE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_SESSION_HANDLE,
    CK_ULONG,
};

/// The handles that the client has been shown.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    state: Mutex<State>,
    /// Whether the client's handles are others than the real module's.
    renumbered: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Real handles in the order in which the client first saw the objects.
    order: Vec<CK_OBJECT_HANDLE>,
    /// What the client sees of them.
    shown: HashMap<CK_OBJECT_HANDLE, CK_OBJECT_HANDLE>,
    /// Handles of the time before C_Finalize, to be given out again.
    old: Vec<CK_OBJECT_HANDLE>,
    /// The greatest handle that the client has seen.
    greatest: CK_OBJECT_HANDLE,
}

impl Handles {
    /// Gives each object the handle of the next.
    pub(crate) fn renumber(&self) {
        let mut state = self.state();
        let mut shown: Vec<_> = state.order.iter().map(|real| state.shown[real]).collect();
        if !shown.is_empty() {
            shown.rotate_left(1);
        }
        state.shown = state.order.iter().copied().zip(shown).collect();
        if !state.old.is_empty() {
            state.old.rotate_left(1);
        }
        self.renumbered.store(true, Ordering::Release);
    }

    /// C_Finalize has succeeded: the real module's handles are void.
    pub(crate) fn finalized(&self) {
        let mut state = self.state();
        state.old = state.order.iter().map(|real| state.shown[real]).collect();
        state.order.clear();
        state.shown.clear();
        self.renumbered.store(false, Ordering::Release);
    }

    /// Before the real call: puts the real module's handles in place of the client's.
    pub(crate) fn translate_arguments(&self, args: &mut dyn Any) {
        if !self.renumbered.load(Ordering::Acquire) {
            return;
        }
        let state = self.state();
        for handle in arguments(args) {
            let mut known = state.shown.iter().filter(|(_, shown)| *shown == handle);
            *handle = known.next().map_or(CK_INVALID_HANDLE, |(real, _)| *real);
        }
    }

    /// After a call that has succeeded: shows the client its handles for the real module's.
    pub(crate) fn translate_results(&self, args: &dyn Any) {
        let found = results(args);
        if found.is_empty() {
            return;
        }
        let renumbered = self.renumbered.load(Ordering::Acquire);
        let mut state = self.state();
        for (start, count) in found {
            if start.is_null() {
                continue;
            }
            // SAFETY: not null, and the real module has succeeded and so has written as many
            // handles here, into memory of the caller's that is ours until the call returns.
            for handle in unsafe { slice::from_raw_parts_mut(start, count) } {
                *handle = state.shown(*handle, renumbered);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shown(&mut self, real: CK_OBJECT_HANDLE, renumbered: bool) -> CK_OBJECT_HANDLE {
        if let Some(shown) = self.shown.get(&real) {
            return *shown;
        }
        let shown = match (renumbered, self.old.is_empty()) {
            (false, _) => real,
            (true, false) => self.old.remove(0),
            (true, true) => self.greatest + 1,
        };
        self.order.push(real);
        self.shown.insert(real, shown);
        self.greatest = self.greatest.max(shown);
        shown
    }
}

type Session = CK_SESSION_HANDLE;
type Object = CK_OBJECT_HANDLE;
type Mechanism = *mut CK_MECHANISM;
type Template = *mut CK_ATTRIBUTE;

/// The object handles that a call takes. Types and order of arguments tell the functions apart.
pub(crate) fn arguments(args: &mut dyn Any) -> Vec<&mut Object> {
    macro_rules! of {
        ($($type:ty: $($place:tt),+;)*) => {
            $(if args.is::<$type>() {
                let args = args.downcast_mut::<$type>().expect("it is of this type");
                return vec![$(&mut args.$place),+];
            })*
        };
    }
    of! {
        // C_EncryptInit and all others of its kind.
        (Session, Mechanism, Object): 2;
        // C_GetAttributeValue, C_SetAttributeValue.
        (Session, Object, Template, CK_ULONG): 1;
        // C_DestroyObject, C_DigestKey.
        (Session, Object): 1;
        // C_GetObjectSize.
        (Session, Object, *mut CK_ULONG): 1;
        // C_CopyObject.
        (Session, Object, Template, CK_ULONG, *mut Object): 1;
        // C_WrapKey.
        (Session, Mechanism, Object, Object, *mut CK_BYTE, *mut CK_ULONG): 2, 3;
        // C_UnwrapKey.
        (Session, Mechanism, Object, *mut CK_BYTE, CK_ULONG, Template, CK_ULONG, *mut Object): 2;
        // C_DeriveKey.
        (Session, Mechanism, Object, Template, CK_ULONG, *mut Object): 2;
        // C_SetOperationState.
        (Session, *mut CK_BYTE, CK_ULONG, Object, Object): 3, 4;
    }
    Vec::new()
}

/// Where a call that has succeeded has put object handles, and how many.
pub(crate) fn results(args: &dyn Any) -> Vec<(*mut Object, usize)> {
    macro_rules! of {
        ($($type:ty: $($place:tt),+;)*) => {
            $(if let Some(args) = args.downcast_ref::<$type>() {
                return vec![$((args.$place, 1)),+];
            })*
        };
    }
    of! {
        // C_CreateObject.
        (Session, Template, CK_ULONG, *mut Object): 3;
        // C_CopyObject.
        (Session, Object, Template, CK_ULONG, *mut Object): 4;
        // C_GenerateKey.
        (Session, Mechanism, Template, CK_ULONG, *mut Object): 4;
        // C_GenerateKeyPair.
        (Session, Mechanism, Template, CK_ULONG, Template, CK_ULONG, *mut Object, *mut Object): 6, 7;
        // C_UnwrapKey.
        (Session, Mechanism, Object, *mut CK_BYTE, CK_ULONG, Template, CK_ULONG, *mut Object): 7;
        // C_DeriveKey.
        (Session, Mechanism, Object, Template, CK_ULONG, *mut Object): 5;
    }
    // C_FindObjects.
    match args.downcast_ref::<(Session, *mut Object, CK_ULONG, *mut CK_ULONG)>() {
        Some((_, objects, _, count)) => {
            // SAFETY: the real module has succeeded and so has written the number, if not to null.
            let count = unsafe { count.as_ref() }.copied().unwrap_or(0);
            vec![(*objects, usize::try_from(count).expect("so many handles are in memory"))]
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client sees of these objects when it finds them.
    fn find<const N: usize>(handles: &Handles, mut real: [Object; N]) -> [Object; N] {
        let mut count = N as CK_ULONG;
        let args: (Session, *mut Object, CK_ULONG, *mut CK_ULONG) =
            (1, real.as_mut_ptr(), count, &raw mut count);
        handles.translate_results(&args);
        real
    }

    /// What the real module sees of a handle that the client uses.
    fn used(handles: &Handles, handle: Object) -> Object {
        let mut args: (Session, Mechanism, Object) = (1, std::ptr::null_mut(), handle);
        handles.translate_arguments(&mut args);
        args.2
    }

    #[test]
    fn handles_are_the_modules_own_at_first() {
        let handles = Handles::default();
        assert_eq!(find(&handles, [2, 3, 7]), [2, 3, 7]);
        assert_eq!((used(&handles, 7), used(&handles, 99)), (7, 99));
    }

    #[test]
    fn each_object_takes_the_handle_of_the_next() {
        let handles = Handles::default();
        find(&handles, [2, 3, 7]);
        handles.renumber();
        assert_eq!([2, 3, 7].map(|old| used(&handles, old)), [7, 2, 3]);
        assert_eq!(find(&handles, [2, 3, 7, 9]), [3, 7, 2, 8]);
        assert_eq!((used(&handles, 8), used(&handles, 9)), (9, CK_INVALID_HANDLE));
    }

    #[test]
    fn handles_of_the_time_before_c_finalize_come_back_for_others() {
        let handles = Handles::default();
        find(&handles, [2, 3]);
        handles.finalized();
        handles.renumber();
        assert_eq!(used(&handles, 2), CK_INVALID_HANDLE, "nothing has been found yet");
        assert_eq!(find(&handles, [2, 3, 4]), [3, 2, 4]);
        assert_eq!((used(&handles, 2), used(&handles, 3)), (3, 2));
        handles.finalized();
        assert_eq!(find(&handles, [2, 3]), [2, 3], "unless a rule says so again");
    }
}
