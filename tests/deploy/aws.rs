//! `deploy/aws`, and every command of the AWS CLI that documents, scripts and xksd itself print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::site::{Configuration, Site, Tenant};
use support::tool::{ask, python, terraform};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a place whose names end so.
fn files(place: &Path, ends: &[&str]) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ends));
        } else if ends.iter().any(|end| path.to_str().unwrap().ends_with(end)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Commands of the AWS CLI in a text: those at the beginning of a line, in `$(...)` or in backquotes, up
/// to their ends, as a shell would divide them.
fn commands(text: &str) -> Vec<Vec<String>> {
    // A backslash at the end of a line joins; run.sh has two, since the text is a here-document.
    let text = text.replace("\\\\\n", " ").replace("\\\n", " ");
    let text = text.as_str();
    let after = |start: &'static str| {
        text.match_indices(start)
            .map(move |(at, _)| words(&text[at + start.len() - "aws ".len()..]))
    };
    // Three words in backquotes are talk of an operation, as is one's help.
    let talk = after("`aws ").map(|mut words| {
        words.extend((words.len() == 3).then(|| "help".to_owned()));
        words
    });
    // What a session of a terminal has typed stands after a prompt.
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("$ "));
    let lines = lines.filter(|line| line.starts_with("aws "));
    let all = after("$(aws ").chain(talk).chain(lines.map(words));
    // `aws kms` alone is nothing, and `aws configure` is no service.
    all.filter(|words| words.len() > 2 && words[1] != "configure").collect()
}

/// The words of one command: quotes, and an end at whatever a shell or a document ends it by.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        let word = words.last_mut().expect("there is one");
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => word.push(c),
            None if "'\"".contains(c) => quote = Some(c),
            None if "\n|<>;&`)".contains(c) => break,
            None if c == ' ' && word.is_empty() => {}
            None if c == ' ' => words.push(String::new()),
            None => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What is wrong with commands, a line for each fault.
fn faults(python: &Path, commands: &[Vec<String>]) -> String {
    let script = root().join("tests/deploy/aws_cli.py");
    ask(Command::new(python).arg(script), &serde_json::to_string(commands).unwrap()).unwrap()
}

#[test]
fn commands_are_found() {
    let text = "Ask `aws kms describe-key`, or:\n\n    ID=$(aws kms create-key --origin X \\\n        \
                --query 'A[0].[B, C]' --output text)\n    aws kms list-keys | cat\n$ aws kms encrypt\n\n`aws kms` is not one";
    let found: Vec<String> = commands(text).iter().map(|words| words.join("~")).collect();
    assert_eq!(
        found,
        [
            "aws~kms~create-key~--origin~X~--query~A[0].[B, C]~--output~text",
            "aws~kms~describe-key~help",
            "aws~kms~list-keys",
            "aws~kms~encrypt",
        ]
    );
}

#[test]
fn every_aws_command_is_one() {
    let places = ["docs", "deploy", "softhsm-setup", "README.md", "SECURITY.md", "CHANGELOG.md"];
    let mut all = Vec::new();
    for path in places.iter().flat_map(|place| files(&root().join(place), &[".md", ".sh", ".yaml"]))
    {
        all.extend(commands(&fs::read_to_string(path).unwrap()));
    }
    // What xksd prints.
    let site = Site::new(env!("CARGO_BIN_EXE_xksd"));
    let tenant = Tenant::new("demo", "demo", &["demo-key"], 'A');
    let id = tenant.credentials[0].id.clone();
    site.configure(&Configuration::new(vec![tenant]));
    let to = site.path().join("kms.json").display().to_string();
    let printed = commands(&site.run(&[
        "credentials",
        "export",
        &id,
        "--keystore",
        "demo",
        "--to",
        &to,
        "--custom-key-store-id",
        "cks-1234567890abcdef0",
    ]));
    assert_eq!(printed.len(), 1);
    all.extend(printed);
    assert!(all.len() > 30, "{all:?}");
    // Each operation of KMS's that a registration wants is shown.
    for operation in
        ["create-custom-key-store", "connect-custom-key-store", "create-key", "decrypt"]
    {
        assert!(all.iter().any(|words| words[1] == "kms" && words[2] == operation), "{operation}");
    }
    let Some(python) = python("botocore", "AWS CLI commands") else { return };
    let faults = faults(&python, &all);
    assert!(faults.is_empty(), "{faults}");
}

/// The test before could not fail otherwise.
#[test]
fn a_wrong_aws_command_is_noticed() {
    let wrong = [
        "aws kmz list-keys",
        "aws kms make-key",
        "aws kms create-key --xks-key demo-key",
        "aws kms create-key --origin EXTERNAL_KEYSTORE",
        "aws kms create-key --xks-key-id 'demo key'",
        "aws kms connect-custom-key-store",
        "aws kms create-custom-key-store --custom-key-store-name demo \
         --xks-proxy-authentication-credential AccessKeyId=ABCDEFGHIJKLMNOPQRST",
        "aws elbv2 wait target-in-services --target-group-arn arn",
        "aws elbv2 create-listener --load-balancer-arn arn --port https --default-actions Type=forward",
        "aws ec2 create-vpc-endpoint-service-configuration --acceptance-required yes",
    ];
    let Some(python) = python("botocore", "AWS CLI commands") else { return };
    let faults = faults(&python, &wrong.map(words));
    for command in wrong {
        let said = format!("{}: ", words(command).join(" "));
        assert!(faults.lines().any(|line| line.starts_with(&said)), "{command}: {faults}");
    }
}

/// All folders of Terraform's files.
fn modules() -> [PathBuf; 3] {
    ["", "examples/public-endpoint", "examples/vpc-endpoint-service"]
        .map(|module| root().join("deploy/aws/terraform").join(module))
}

#[test]
fn terraforms_arguments_exist() {
    let script = root().join("tests/deploy/terraform.py");
    let Some(python) = python("hcl2", "Terraform's files by python-hcl2") else { return };
    let faults = ask(Command::new(&python).arg(&script).args(modules()), "");
    assert_eq!(faults.as_deref(), Ok(""));
    // And what does not is noticed.
    let spoilt = tempfile::tempdir().unwrap();
    for path in files(&modules()[0], &[".tf"])
        .iter()
        .filter(|path| !path.to_str().unwrap().contains("/examples/"))
    {
        let text = fs::read_to_string(path).unwrap();
        let text = text
            .replace("xks_key_id  ", "xks_keyid  ")
            .replace("  acceptance_required = false\n", "");
        let text = text
            .replace("var.target_port", "var.port")
            .replace("raw_secret_access_key =", "secret =");
        fs::write(spoilt.path().join(path.file_name().unwrap()), text).unwrap();
    }
    let faults = ask(Command::new(&python).arg(&script).arg(spoilt.path()), "").unwrap();
    for fault in [
        "no argument xks_keyid",
        "lacks acceptance_required",
        "no variable port",
        "lacks raw_secret_access_key",
    ] {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
}

/// `validate` wants the provider, which only its registry has.
#[test]
fn terraform_agrees() {
    let Some(program) = terraform("terraform fmt and validate") else { return };
    let [module, ..] = modules();
    let arguments = ["fmt", "-check", "-diff", "-recursive"];
    let formatted = ask(Command::new(&program).args(arguments).arg(&module), "");
    assert_eq!(formatted.as_deref(), Ok(""));
    // It is there where somebody has run `init`; nothing is fetched here.
    if !module.join(".terraform").is_dir() {
        return support::not_run(
            "terraform validate: the AWS provider is not there (terraform init)",
        );
    }
    let valid = ask(Command::new(program).arg("validate").current_dir(&module), "");
    assert!(valid.is_ok(), "{valid:?}");
}

/// The variables by themselves, which want no provider.
#[test]
fn terraform_refuses_what_kms_would_refuse() {
    let Some(program) = terraform("the variables of the Terraform module") else { return };
    let place = tempfile::tempdir().unwrap();
    let variables = modules()[0].join("variables.tf");
    fs::copy(variables, place.path().join("variables.tf")).unwrap();
    let good = [
        ("name", "demo"),
        ("connectivity", "VPC_ENDPOINT_SERVICE"),
        ("domain_name", "xks.example.com"),
        ("uri_path", "/demo/kms/xks/v1"),
    ];
    let plan = |more: Option<(&str, &str)>| {
        let given = good.iter().filter(|(name, _)| more.is_none_or(|(other, _)| *name != other));
        let given = given.copied().chain(more).map(|(name, value)| format!("-var={name}={value}"));
        let mut command = Command::new(&program);
        command.args(["plan", "-input=false", "-no-color"]).args(given);
        ask(command.current_dir(place.path()).env("CHECKPOINT_DISABLE", "1"), "")
    };
    for accepted in [
        None,
        Some(("uri_path", "/kms/xks/v1")),
        Some(("access_key_id", "ABCDEFGHIJKLMNOPQRST")),
        Some(("secret_access_key", "0123456789abcdefghijklmnopqrstuvwxyzABCDEF/")),
        Some(("keys", "{ demo = \"demo-key.1_a\" }")),
        Some(("custom_key_store_id", "cks-1234567890abcdef0")),
    ] {
        let planned = plan(accepted);
        assert!(planned.is_ok(), "{accepted:?}: {planned:?}");
    }
    for refused in [
        ("name", "a_name"),
        ("connectivity", "PUBLIC"),
        ("domain_name", "https://xks.example.com"),
        ("domain_name", "localhost"),
        ("uri_path", "/demo"),
        ("uri_path", "/demo/kms/xks/v1/"),
        ("target_port", "0"),
        ("health_port", "65536"),
        ("access_key_id", "abcdefghijklmnopqrst"),
        ("secret_access_key", "short"),
        ("keys", "{ demo = \"demo key\" }"),
        ("custom_key_store_id", "demo"),
    ] {
        let faults = plan(Some(refused)).unwrap_err();
        assert!(faults.contains("Invalid value for variable"), "{refused:?}: {faults}");
    }
}

#[test]
fn cfn_lint_finds_nothing_in_the_template() {
    let template = root().join("deploy/aws/cloudformation/xks-network.yaml");
    let what = "the CloudFormation template by cfn-lint";
    let Some(python) = python("cfnlint", what) else { return };
    // What the script cfn-lint of the package runs.
    let run = "import sys; from cfnlint.runner import main; sys.exit(main())";
    let all = ["--include-checks", "I", "--non-zero-exit-code", "informational"];
    let arguments = [&["-c", run][..], &all, &["-t"]].concat();
    let passed = ask(Command::new(&python).args(&arguments).arg(&template), "");
    assert!(passed.is_ok(), "{passed:?}");
    let spoilt = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let text = fs::read_to_string(&template).unwrap();
    fs::write(spoilt.path(), text.replace("AcceptanceRequired", "AcceptanceWanted")).unwrap();
    let faults = ask(Command::new(&python).args(&arguments).arg(spoilt.path()), "").unwrap_err();
    assert!(faults.contains("AcceptanceWanted"), "{faults}");
}

/// Every code that KMS may give for an external key store has its row.
#[test]
fn every_connection_error_is_explained() {
    let document = fs::read_to_string(root().join("docs/aws.md")).unwrap();
    let Some(python) = python("botocore", "KMS's connection errors") else { return };
    let code = "import botocore.session as s\n\
                m = s.get_session().get_service_model('kms')\n\
                print(*m.shape_for('ConnectionErrorCodeType').enum, sep='\\n')";
    let codes = ask(Command::new(python).args(["-c", code]), "").unwrap();
    let ours =
        codes.lines().filter(|code| code.starts_with("XKS_") || *code == "INVALID_CREDENTIALS");
    let ours: Vec<&str> = ours.collect();
    assert!(ours.len() >= 9, "{codes}");
    for code in ours {
        assert!(document.contains(&format!("`{code}`")), "{code}");
    }
}
