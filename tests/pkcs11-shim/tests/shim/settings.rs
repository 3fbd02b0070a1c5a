//! A file beside the library goes before the environment.

use std::env;
use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use support::shim::{self, Counts, set_script};

use crate::house::{Client, House, answer, path_in, run};

/// In the child: the directory with copies of the shim.
const COPIES: &str = "SHIM_TEST_COPIES";

fn initialize(directory: &Path, name: &str) -> cryptoki::error::Result<()> {
    let pkcs11 = Pkcs11::new(directory.join(name)).expect("the copy can be loaded");
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

#[test]
fn copies_of_the_library_have_settings_of_their_own() {
    if Client::of_this_process().is_some() {
        let directory = path_in(COPIES);
        assert!(env::vars_os().all(|(name, _)| name != "PKCS11_SHIM_SCRIPT"));
        assert_eq!(answer(initialize(&directory, "one hsm.so")), RvError::DeviceError);
        assert_eq!(answer(initialize(&directory, "other.so")), RvError::DeviceRemoved);
        assert_eq!(answer(initialize(&directory, "bad.so")), RvError::GeneralError);
        assert_eq!(Counts::read(&directory.join("counts")).of("C_Initialize"), 1);
        return;
    }
    let house = House::build();
    let directory: PathBuf = house.directory().canonicalize().expect("it is there");
    let script = |name: &str, text| {
        set_script(&directory.join(name), text);
        format!("PKCS11_SHIM_SCRIPT={}\n", directory.join(name).display())
    };
    let counts = format!("PKCS11_SHIM_COUNTS={}\n", directory.join("counts").display());
    let one = script("one", "C_Initialize return CKR_DEVICE_ERROR") + &counts;
    shim::copy(&directory, "one hsm.so", &one);
    shim::copy(&directory, "other.so", &script("other", "C_Initialize return CKR_DEVICE_REMOVED"));
    shim::copy(&directory, "bad.so", "# good\nPKCS11_SHIM=1\n");
    let test = "settings::copies_of_the_library_have_settings_of_their_own";
    let stderr = run(house.client(test).env(COPIES, &directory));
    let file = directory.join("bad.so.conf");
    let expected = format!(
        "pkcs11-shim: `{}`:2: not a setting of the shim, like `PKCS11_SHIM_SCRIPT=/tmp/script`\n",
        file.display()
    );
    assert_eq!(stderr, expected);
}
