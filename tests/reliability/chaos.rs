//! Random faults: everything that the shim can do, changing all the time.

use xksd::hsm::codes;

use crate::figures::Row;
use crate::world::{Isolation, Scale, World};

/// Functions of the data path and of the background. Not C_Login: a PIN that is refused is for the
/// operator to look at, and ends the attempts.
const FUNCTIONS: [&str; 12] = [
    "C_EncryptInit",
    "C_Encrypt",
    "C_DecryptInit",
    "C_Decrypt",
    "C_GenerateRandom",
    "C_GenerateKey",
    "C_OpenSession",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_GetAttributeValue",
    "C_GetTokenInfo",
    "C_CloseSession",
];

/// Lies that an honest client can see through. A C_Decrypt that returns another plaintext of the
/// right length is none of them.
const LIES: [&str; 8] = [
    "C_Encrypt flip",
    "C_Encrypt zero",
    "C_Encrypt same",
    "C_Encrypt short 3",
    "C_Encrypt long 16",
    "C_Decrypt short",
    "C_GenerateRandom zero",
    "C_GenerateRandom same",
];

/// Numbers by chance, the same for the same seed (SplitMix64: Steele, Lea, Flood 2014).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[(self.draw() % all.len() as u64) as usize]
    }

    /// A script of up to three rules; in each fifth, nothing fails.
    pub(crate) fn script(&mut self, isolation: Isolation) -> String {
        if self.draw().is_multiple_of(5) {
            return String::new();
        }
        (0..=self.draw() % 3).map(|_| self.rule(isolation) + "\n").collect()
    }

    fn rule(&mut self, isolation: Isolation) -> String {
        let share = self.of(&["1%", "5%", "20%"]).to_owned();
        let function = self.of(&FUNCTIONS).to_owned();
        match self.draw() % 10 {
            0..=4 => {
                // CKR_OK comes first; a call that is said to have been made and was not is a lie.
                let (code, _) = self.of(&codes::ALL[1..]);
                let after = self.of(&["", " after"]);
                format!("{function} share {share} return {:#x}{after}", code.0)
            }
            5 => format!("{function} share {share} delay 1ms..60ms"),
            6 => format!("{function} nth {} hang", 1 + self.draw() % 20),
            7 if isolation == Isolation::Process => {
                format!("{function} nth {} {}", 1 + self.draw() % 20, self.of(&["crash", "exit 1"]))
            }
            8 => "C_Login renumber".to_owned(),
            _ => format!("{} share {share}", self.of(&LIES)),
        }
    }
}

/// Faults by chance, others every second; in the end every ciphertext is decrypted.
pub(crate) fn one_token(scale: Scale, isolation: Isolation) -> Row {
    let settings = [
        ("call_limit", "1s"),
        // Probes and readings often enough to meet the faults.
        ("catalogue_interval", "300ms"),
        ("probe_interval", "500ms"),
    ];
    // With bits flipped, only what is checked can be promised.
    let checked = [("XKSD_KEYSTORES__DEMO__VERIFY_WRITES", "always")];
    let mut world = World::with(scale, isolation, &settings, &checked);
    let (scripts, seed) = (scale.pick(10, 600), 42);
    let mut chance = Chance::new(seed);
    let running = world.load().start(&world.vault);
    for _ in 0..scripts {
        world.script(&chance.script(isolation));
        // As many as are due in a second.
        running.wait(world.scale.rate() as usize);
    }
    world.script("");
    let report = running.finish();
    let what = format!("random faults, {scripts} scripts ({})", isolation.name());
    world.finish(&what, &report).remark("verify_writes = \"always\"")
}

#[test]
fn nothing_is_lost_whatever_a_module_of_its_own_process_does() {
    one_token(Scale::Short, Isolation::Process);
}

#[test]
fn nothing_is_lost_whatever_a_module_on_threads_does() {
    one_token(Scale::Short, Isolation::Thread);
}
