//! One call under a script: what its rules do before and after the real module has answered.

use std::any::Any;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cryptoki_sys::{
    CK_FLAGS, CK_FUNCTION_LIST, CK_GCM_MESSAGE_PARAMS, CK_NOTIFY, CK_RV, CK_SESSION_HANDLE,
    CK_SLOT_ID, CKF_RW_SESSION, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_OK,
};

use crate::chance::Chance;
use crate::function::Function;
use crate::handles::Handles;
use crate::iv::{self, Rewritten};
use crate::output::{InputOutput, Output};
use crate::rule::{Action, Facts, Rule, When};
use crate::script::Script;
use crate::script_file::ScriptFile;
use crate::sessions::{Opening, Sessions};

/// How often a call that hangs looks whether another script has been loaded.
const HANGING: Duration = Duration::from_millis(2);

type OpenSession = (CK_SLOT_ID, CK_FLAGS, *mut std::ffi::c_void, CK_NOTIFY, *mut CK_SESSION_HANDLE);

/// The script, and what its rules must know of earlier calls.
pub(crate) struct Scripted {
    file: ScriptFile,
    sessions: Sessions,
    handles: Handles,
}

/// A call, obeying the script that was in force when it began.
pub(crate) struct Call<'s> {
    scripted: &'s Scripted,
    script: Arc<Script>,
    function: Function,
    facts: Facts,
    opening: Option<Opening<'s>>,
    /// What the real module's C_EncryptInit is given in place of the caller's mechanism.
    rewritten: Option<Box<Rewritten>>,
    /// What its C_EncryptMessage is given in place of the caller's parameters.
    message: Option<Box<CK_GCM_MESSAGE_PARAMS>>,
}

impl Scripted {
    pub(crate) fn new(file: ScriptFile) -> Self {
        Self { file, sessions: Sessions::default(), handles: Handles::default() }
    }

    /// A call of this function begins.
    pub(crate) fn call(&self, function: Function, args: &dyn Any) -> Call<'_> {
        let script = self.file.current();
        let number = script.next_call(function);
        let open_session = args.downcast_ref::<OpenSession>();
        let opening = open_session.map(|_| self.sessions.opening());
        let facts = Facts {
            number,
            sessions: opening.as_ref().map_or(0, |opening| opening.before),
            read_only: open_session.is_some_and(|(_, flags, ..)| flags & CKF_RW_SESSION == 0),
        };
        let (rewritten, message) = (None, None);
        Call { scripted: self, script, function, facts, opening, rewritten, message }
    }
}

impl Call<'_> {
    /// Obeys the rules before the real call; the answer of one that gives an answer ends the call.
    ///
    /// `args` may be changed: they are what the real module is to get.
    pub(crate) fn before(
        &mut self,
        real: Option<&CK_FUNCTION_LIST>,
        args: &mut dyn Any,
    ) -> Option<CK_RV> {
        let script = Arc::clone(&self.script);
        for (rule, mut chance) in selected(&script, self.function, self.facts) {
            match &rule.action {
                Action::Delay(range) => {
                    let spread = range.end().saturating_sub(*range.start()).as_micros();
                    let spread = u64::try_from(spread).unwrap_or(u64::MAX);
                    let more = Duration::from_micros(chance.below(spread.saturating_add(1)));
                    thread::sleep(*range.start() + more);
                }
                Action::Hang => self.hang(),
                Action::Crash => process::abort(),
                Action::Exit(status) => process::exit(*status),
                Action::Return(code, When::Before) => return Some(*code),
                Action::Renumber => self.scripted.handles.renumber(),
                Action::Iv(place, value) => {
                    let Some(real) = real else { return Some(CKR_CRYPTOKI_NOT_INITIALIZED) };
                    let made = if self.function == Function::C_EncryptMessage {
                        iv::make_for_message(rule, *value, real, args)
                            .map(|message| self.message = Some(message))
                    } else {
                        iv::make(rule, *place, *value, real, args)
                            .map(|rewritten| self.rewritten = rewritten)
                    };
                    if let Err(refusal) = made {
                        return Some(refusal);
                    }
                }
                _ => {}
            }
        }
        // It takes flags, which look like the handle of C_DestroyObject.
        if self.function != Function::C_SessionCancel {
            self.scripted.handles.translate_arguments(args);
        }
        let encrypt = self.encrypt(args)?;
        self.scripted.sessions.appended(encrypt.0)?.check_room(encrypt).err()
    }

    /// Takes notice of what the real module has answered, and obeys the rules that come after it.
    pub(crate) fn after(mut self, args: &dyn Any, answer: CK_RV) -> CK_RV {
        self.remember(args, answer);
        let mut output = Output::of_call(self.function, args, answer);
        let mut given = answer;
        let script = Arc::clone(&self.script);
        for (rule, chance) in selected(&script, self.function, self.facts) {
            match &rule.action {
                Action::Return(code, When::After) => given = *code,
                Action::Return(code, When::For(wanted)) if given == *wanted => given = *code,
                Action::Say(field, text) if answer == CKR_OK => field.write(text, args),
                _ => output.iter_mut().for_each(|output| output.obey(rule, chance.clone())),
            }
        }
        given
    }

    fn hang(&self) {
        while Arc::ptr_eq(&self.script, &self.scripted.file.current()) {
            thread::sleep(HANGING);
        }
    }

    /// What changes with the real module's state: sessions, handles, IVs still to be appended.
    fn remember(&mut self, args: &dyn Any, answer: CK_RV) {
        let sessions = &self.scripted.sessions;
        if let Some(encrypt) = self.encrypt(args) {
            if let Some(appended) = sessions.appended(encrypt.0) {
                sessions.append(encrypt.0, appended.add(encrypt, answer));
            }
            return;
        }
        if answer != CKR_OK {
            return;
        }
        self.scripted.handles.translate_results(args);
        match self.function {
            Function::C_OpenSession => {
                let args = args.downcast_ref::<OpenSession>();
                if let (Some(opening), Some((slot, .., session))) = (self.opening.take(), args) {
                    // SAFETY: the call has succeeded, so the real module has written the handle.
                    opening.opened(*slot, unsafe { **session });
                }
            }
            Function::C_CloseSession => first(args, |session| sessions.closed(session)),
            Function::C_CloseAllSessions => first(args, |slot| sessions.all_closed(slot)),
            Function::C_Finalize => {
                sessions.finalized();
                self.scripted.handles.finalized();
            }
            Function::C_EncryptInit => {
                let appended = self.rewritten.take().map(|rewritten| rewritten.appended());
                if let Some((session, ..)) = args.downcast_ref::<iv::EncryptInit>() {
                    sessions.append(*session, appended);
                }
            }
            _ => {}
        }
    }

    fn encrypt<'a>(&self, args: &'a dyn Any) -> Option<&'a InputOutput> {
        args.downcast_ref().filter(|_| self.function == Function::C_Encrypt)
    }
}

/// The rules to obey at a call, each with its chance.
fn selected(
    script: &Script,
    function: Function,
    facts: Facts,
) -> impl Iterator<Item = (&Rule, Chance)> {
    let seed = script.seed;
    let rules = script.rules(function).iter().filter(move |rule| rule.selects(&facts, seed));
    rules.map(move |rule| (rule, rule.chance_of_action(&facts, seed)))
}

/// Does something with the only argument of a function.
fn first<T: Copy + Any>(args: &dyn Any, then: impl FnOnce(T)) {
    if let Some((argument,)) = args.downcast_ref::<(T,)>() {
        then(*argument);
    }
}
