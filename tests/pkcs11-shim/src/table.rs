//! The one table of PKCS#11 functions; everything that exists per function is made from it.

/// Hands every function of PKCS#11 2.40 that is forwarded, with its parameters, to `$with`, and after
/// them those that PKCS#11 3.0 has brought.
///
/// C_GetFunctionList, C_GetInterfaceList and C_GetInterface are left out because they are never
/// forwarded: the shim answers them with its own lists. Order and types are those of
/// `CK_FUNCTION_LIST` and `CK_FUNCTION_LIST_3_0` (PKCS#11 3.0, section 3.6), and the compiler compares
/// them with these where the lists are filled in.
macro_rules! for_each_forwarded_function {
    ($with:ident) => {
        $with! {{
            fn C_Initialize(args: *mut c_void);
            fn C_Finalize(reserved: *mut c_void);
            fn C_GetInfo(info: *mut CK_INFO);
            fn C_GetSlotList(token_present: CK_BBOOL, slots: *mut CK_SLOT_ID, count: *mut CK_ULONG);
            fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO);
            fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO);
            fn C_GetMechanismList(
                slot: CK_SLOT_ID, mechanisms: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG,
            );
            fn C_GetMechanismInfo(
                slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO,
            );
            fn C_InitToken(
                slot: CK_SLOT_ID, pin: *mut CK_UTF8CHAR, pin_len: CK_ULONG, label: *mut CK_UTF8CHAR,
            );
            fn C_InitPIN(session: CK_SESSION_HANDLE, pin: *mut CK_UTF8CHAR, pin_len: CK_ULONG);
            fn C_SetPIN(
                session: CK_SESSION_HANDLE, old: *mut CK_UTF8CHAR, old_len: CK_ULONG,
                new: *mut CK_UTF8CHAR, new_len: CK_ULONG,
            );
            fn C_OpenSession(
                slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut c_void, notify: CK_NOTIFY,
                session: *mut CK_SESSION_HANDLE,
            );
            fn C_CloseSession(session: CK_SESSION_HANDLE);
            fn C_CloseAllSessions(slot: CK_SLOT_ID);
            fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO);
            fn C_GetOperationState(
                session: CK_SESSION_HANDLE, state: *mut CK_BYTE, state_len: *mut CK_ULONG,
            );
            fn C_SetOperationState(
                session: CK_SESSION_HANDLE, state: *mut CK_BYTE, state_len: CK_ULONG,
                encryption_key: CK_OBJECT_HANDLE, authentication_key: CK_OBJECT_HANDLE,
            );
            fn C_Login(
                session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR,
                pin_len: CK_ULONG,
            );
            fn C_Logout(session: CK_SESSION_HANDLE);
            fn C_CreateObject(
                session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
                object: *mut CK_OBJECT_HANDLE,
            );
            fn C_CopyObject(
                session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE,
                count: CK_ULONG, copy: *mut CK_OBJECT_HANDLE,
            );
            fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
            fn C_GetObjectSize(
                session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, size: *mut CK_ULONG,
            );
            fn C_GetAttributeValue(
                session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE,
                count: CK_ULONG,
            );
            fn C_SetAttributeValue(
                session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE,
                count: CK_ULONG,
            );
            fn C_FindObjectsInit(
                session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
            );
            fn C_FindObjects(
                session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, max: CK_ULONG,
                count: *mut CK_ULONG,
            );
            fn C_FindObjectsFinal(session: CK_SESSION_HANDLE);
            fn C_EncryptInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_Encrypt(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_EncryptUpdate(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_EncryptFinal(
                session: CK_SESSION_HANDLE, output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DecryptInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_Decrypt(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DecryptUpdate(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DecryptFinal(
                session: CK_SESSION_HANDLE, output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DigestInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM);
            fn C_Digest(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DigestUpdate(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG);
            fn C_DigestKey(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE);
            fn C_DigestFinal(
                session: CK_SESSION_HANDLE, output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_SignInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_Sign(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_SignUpdate(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG);
            fn C_SignFinal(
                session: CK_SESSION_HANDLE, output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_SignRecoverInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_SignRecover(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_VerifyInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_Verify(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                signature: *mut CK_BYTE, signature_len: CK_ULONG,
            );
            fn C_VerifyUpdate(session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG);
            fn C_VerifyFinal(
                session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, signature_len: CK_ULONG,
            );
            fn C_VerifyRecoverInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_VerifyRecover(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DigestEncryptUpdate(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DecryptDigestUpdate(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_SignEncryptUpdate(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DecryptVerifyUpdate(
                session: CK_SESSION_HANDLE, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_GenerateKey(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
                template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE,
            );
            fn C_GenerateKeyPair(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
                public_template: *mut CK_ATTRIBUTE, public_count: CK_ULONG,
                private_template: *mut CK_ATTRIBUTE, private_count: CK_ULONG,
                public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE,
            );
            fn C_WrapKey(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
                wrapping_key: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, output: *mut CK_BYTE,
                output_len: *mut CK_ULONG,
            );
            fn C_UnwrapKey(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
                unwrapping_key: CK_OBJECT_HANDLE, wrapped: *mut CK_BYTE, wrapped_len: CK_ULONG,
                template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE,
            );
            fn C_DeriveKey(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
                base_key: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
                key: *mut CK_OBJECT_HANDLE,
            );
            fn C_SeedRandom(session: CK_SESSION_HANDLE, seed: *mut CK_BYTE, seed_len: CK_ULONG);
            fn C_GenerateRandom(
                session: CK_SESSION_HANDLE, output: *mut CK_BYTE, output_len: CK_ULONG,
            );
            fn C_GetFunctionStatus(session: CK_SESSION_HANDLE);
            fn C_CancelFunction(session: CK_SESSION_HANDLE);
            fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut CK_SLOT_ID, reserved: *mut c_void);
        } {
            fn C_LoginUser(
                session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR,
                pin_len: CK_ULONG, name: *mut CK_UTF8CHAR, name_len: CK_ULONG,
            );
            fn C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS);
            fn C_MessageEncryptInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_EncryptMessage(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                aad: *mut CK_BYTE, aad_len: CK_ULONG, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_EncryptMessageBegin(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                aad: *mut CK_BYTE, aad_len: CK_ULONG,
            );
            fn C_EncryptMessageNext(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                input: *mut CK_BYTE, input_len: CK_ULONG, output: *mut CK_BYTE,
                output_len: *mut CK_ULONG, flags: CK_FLAGS,
            );
            fn C_MessageEncryptFinal(session: CK_SESSION_HANDLE);
            fn C_MessageDecryptInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_DecryptMessage(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                aad: *mut CK_BYTE, aad_len: CK_ULONG, input: *mut CK_BYTE, input_len: CK_ULONG,
                output: *mut CK_BYTE, output_len: *mut CK_ULONG,
            );
            fn C_DecryptMessageBegin(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                aad: *mut CK_BYTE, aad_len: CK_ULONG,
            );
            fn C_DecryptMessageNext(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                input: *mut CK_BYTE, input_len: CK_ULONG, output: *mut CK_BYTE,
                output_len: *mut CK_ULONG, flags: CK_FLAGS,
            );
            fn C_MessageDecryptFinal(session: CK_SESSION_HANDLE);
            fn C_MessageSignInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_SignMessage(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE,
                signature_len: *mut CK_ULONG,
            );
            fn C_SignMessageBegin(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
            );
            fn C_SignMessageNext(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE,
                signature_len: *mut CK_ULONG,
            );
            fn C_MessageSignFinal(session: CK_SESSION_HANDLE);
            fn C_MessageVerifyInit(
                session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE,
            );
            fn C_VerifyMessage(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE,
                signature_len: CK_ULONG,
            );
            fn C_VerifyMessageBegin(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
            );
            fn C_VerifyMessageNext(
                session: CK_SESSION_HANDLE, parameter: *mut c_void, parameter_len: CK_ULONG,
                data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE,
                signature_len: CK_ULONG,
            );
            fn C_MessageVerifyFinal(session: CK_SESSION_HANDLE);
        }}
    };
}

pub(crate) use for_each_forwarded_function;
