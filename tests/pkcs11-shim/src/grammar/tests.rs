use std::time::Duration;

use super::*;
use crate::rule::Share;

fn rule(line: &str) -> (Vec<Selector>, Action) {
    match parse_line(line) {
        Ok(Line::Rule { functions, selectors, action }) if functions.len() == 1 => {
            (selectors, action)
        }
        other => panic!("`{line}`: {other:?}"),
    }
}

fn cause(line: &str) -> Cause {
    match parse_line(line) {
        Err(cause) => cause,
        Ok(good) => panic!("`{line}`: {good:?}"),
    }
}

fn number(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).expect("not zero")
}

#[test]
fn actions() {
    let ms = Duration::from_millis;
    for (line, action) in [
        ("C_Login delay 2ms", Action::Delay(ms(2)..=ms(2))),
        ("C_Login delay 1ms..2s", Action::Delay(ms(1)..=ms(2000))),
        ("C_Login hang", Action::Hang),
        ("C_Login crash", Action::Crash),
        ("C_Login exit", Action::Exit(1)),
        ("C_Login exit 0", Action::Exit(0)),
        ("C_Login return CKR_PIN_LOCKED", Action::Return(0xa4, When::Before)),
        ("C_Login return 0x80000383 after", Action::Return(0x8000_0383, When::After)),
        ("C_Login return 5 for CKR_OK", Action::Return(5, When::For(0))),
        ("C_Encrypt flip", Action::Flip(1)),
        ("C_GenerateRandom flip 8", Action::Flip(8)),
        ("C_Encrypt short", Action::Short(1)),
        ("C_Decrypt long 4", Action::Long(4)),
        ("C_GenerateRandom zero", Action::Zero),
        ("C_GenerateRandom same", Action::Same),
        ("C_Initialize renumber", Action::Renumber),
        ("C_EncryptInit iv in-place", Action::Iv(IvPlace::InPlace, IvValue::Fresh)),
        ("C_EncryptInit iv appended same", Action::Iv(IvPlace::Appended, IvValue::Same)),
    ] {
        assert_eq!(rule(line), (vec![], action), "{line}");
    }
    let (_, action) = rule("C_GetTokenInfo say model  Luna K7  # 16 bytes at most");
    assert!(
        matches!(action, Action::Say(field, text) if field.name == "model" && text == "Luna K7")
    );
}

#[test]
fn comments() {
    for line in ["", " ", "# C_Login hang", "  # C_Login hang", "#"] {
        assert_eq!(parse_line(line), Ok(Line::Blank), "{line}");
    }
    assert_eq!(rule("C_Login hang # nth 3"), (vec![], Action::Hang));
    assert_eq!(cause("C_Login hang# nth 3"), Cause::UnknownWord("hang#".into()));
    let (_, action) = rule("C_GetInfo say library PKCS#11 # one");
    assert!(matches!(action, Action::Say(_, text) if text == "PKCS#11"));
}

#[test]
fn selectors_stand_before_or_after_the_action() {
    for (words, selector) in [
        ("nth 3", Selector::Nth(number(3))),
        ("every 10", Selector::Every(number(10))),
        ("first 5", Selector::First(number(5))),
        ("from 6", Selector::From(number(6))),
        ("share 1%", Selector::Share(Share(10_000))),
        ("share 0.5%", Selector::Share(Share(5_000))),
        ("share 0.0001%", Selector::Share(Share(1))),
        ("share 100%", Selector::Share(Share(1_000_000))),
        ("read-only", Selector::ReadOnly),
        ("beyond 8", Selector::Beyond(8)),
    ] {
        for line in
            [format!("C_OpenSession {words} return 5"), format!("C_OpenSession return 5 {words}")]
        {
            assert_eq!(rule(&line), (vec![selector], Action::Return(5, When::Before)), "{line}");
        }
    }
    let (selectors, action) = rule("C_Encrypt from 6 flip 2 every 3");
    assert_eq!(selectors, [Selector::From(number(6)), Selector::Every(number(3))]);
    assert_eq!(action, Action::Flip(2));
}

#[test]
fn a_star_stands_for_all_functions_of_that_beginning() {
    let functions = |line| match parse_line(line) {
        Ok(Line::Rule { functions, .. }) => functions,
        other => panic!("{other:?}"),
    };
    assert_eq!(functions("C_* hang").len(), Function::COUNT);
    assert_eq!(
        functions("C_Encrypt* hang"),
        [
            "C_EncryptInit",
            "C_Encrypt",
            "C_EncryptUpdate",
            "C_EncryptFinal",
            "C_EncryptMessage",
            "C_EncryptMessageBegin",
            "C_EncryptMessageNext",
        ]
        .map(|name| Function::named(name).expect("there is one"))
    );
    assert_eq!(cause("* hang"), Cause::UnknownFunction("*".into()));
    assert_eq!(cause("C_X* hang"), Cause::UnknownFunction("C_X*".into()));
}

#[test]
fn bad_lines_by_cause() {
    let text = str::to_owned;
    for (line, expected) in [
        ("c_encrypt delay 1s", Cause::UnknownFunction(text("c_encrypt"))),
        ("C_Encrypt", Cause::NoAction),
        ("C_Encrypt # delay 1s", Cause::NoAction),
        ("C_Encrypt nth 3", Cause::NoAction),
        ("C_Encrypt shout", Cause::UnknownWord(text("shout"))),
        ("C_Encrypt delay", Cause::Missing(text("delay"), "a time, like `2ms`")),
        ("C_Encrypt delay 1s 2s", Cause::Surplus(text("2s"))),
        ("C_Encrypt delay 2ms..1ms", Cause::BadRange(text("2ms..1ms"))),
        ("C_Encrypt hang crash", Cause::SecondAction(text("crash"))),
        ("C_Encrypt hang nth", Cause::Missing(text("nth"), "a number, like `3`")),
        ("C_Encrypt hang nth 0", Cause::BadNumber(text("0"))),
        ("C_Encrypt flip 0", Cause::Surplus(text("0"))),
        ("C_Encrypt exit 256", Cause::BadStatus(text("256"))),
        ("C_Encrypt return CKR_OOPS", Cause::BadCode(text("CKR_OOPS"))),
        (
            "C_Encrypt return 5 for",
            Cause::Missing(text("for"), "a return code, like `CKR_DEVICE_ERROR`"),
        ),
        ("C_EncryptInit iv elsewhere", Cause::BadPlace(text("elsewhere"))),
        ("C_GetInfo say model Luna", Cause::BadField(text("model"))),
        ("C_Login say model Luna", Cause::BadField(text("model"))),
        (
            "C_GetTokenInfo say model 12345678901234567",
            Cause::LongText(text("12345678901234567"), 16),
        ),
        ("C_GetTokenInfo say sessions many", Cause::BadNumber(text("many"))),
        ("C_GetTokenInfo say flags 0xg", Cause::BadNumber(text("0xg"))),
        ("C_Login flip", Cause::Unfit(text("flip"), Function::C_Login)),
        ("C_GenerateRandom short", Cause::Unfit(text("short"), Function::C_GenerateRandom)),
        ("C_Encrypt iv appended", Cause::Unfit(text("iv"), Function::C_Encrypt)),
        ("C_Encrypt beyond 1 hang", Cause::Unfit(text("beyond"), Function::C_Encrypt)),
        ("C_Encrypt* zero", Cause::Unfit(text("zero"), Function::C_EncryptInit)),
        ("play", Cause::Missing(text("play"), "a name, like `cloudhsm`")),
        ("play luna now", Cause::Surplus(text("now"))),
    ] {
        assert_eq!(cause(line), expected, "{line}");
    }
    for word in
        ["2", "ms", "-1s", "+1s", "1.5s", "1m", "2MS", "99999999999999999999s", "1ms..", ".."]
    {
        assert_eq!(
            cause(&format!("C_Encrypt delay {word}")),
            Cause::BadTime(word.into()),
            "{word}"
        );
    }
    for word in ["1", "%", "0%", "100.1%", "101%", "-1%", "1.00001%", "1.%", ".5%", "1e1%", "+1%"] {
        let line = format!("C_Encrypt share {word} hang");
        assert_eq!(cause(&line), Cause::BadShare(word.into()), "{word}");
    }
}

#[test]
fn causes_name_the_way_out() {
    assert_eq!(cause("C_Encrypt delay").to_string(), "`delay` needs a time, like `2ms`");
    assert_eq!(cause("C_Login flip").to_string(), "`flip` has no sense at a call of C_Login");
    let message = cause("C_Encrypt shout").to_string();
    assert!(message.contains("`delay`, `hang`") && message.contains("`nth`, `every`"), "{message}");
}

#[test]
fn every_keyword_is_in_the_readme() {
    let readme = include_str!("../../README.md");
    let in_table = |keyword: &str| {
        ["`", " "].iter().any(|end| readme.contains(&format!("\n| `{keyword}{end}")))
    };
    for keyword in ACTIONS
        .iter()
        .map(|(keyword, _)| *keyword)
        .chain(SELECTORS.iter().map(|(keyword, _)| *keyword))
    {
        assert!(in_table(keyword), "no `{keyword}`");
    }
}
