locals {
  key_store_id = var.register ? aws_kms_custom_key_store.xksd[0].id : var.custom_key_store_id
}

# Making it does not connect it: aws kms connect-custom-key-store does, and keys come after that.
resource "aws_kms_custom_key_store" "xksd" {
  count = var.register ? 1 : 0

  custom_key_store_name               = var.name
  custom_key_store_type               = "EXTERNAL_KEY_STORE"
  xks_proxy_connectivity              = var.connectivity
  xks_proxy_uri_endpoint              = "https://${var.domain_name}"
  xks_proxy_uri_path                  = var.uri_path
  xks_proxy_vpc_endpoint_service_name = local.is_private ? aws_vpc_endpoint_service.xksd[0].service_name : null

  xks_proxy_authentication_credential {
    access_key_id         = var.access_key_id
    raw_secret_access_key = var.secret_access_key
  }

  lifecycle {
    # Rotated with the AWS CLI, so that no secret that is in use is in the state.
    ignore_changes = [xks_proxy_authentication_credential]

    precondition {
      condition     = var.access_key_id != null && var.secret_access_key != null
      error_message = "To register the key store, access_key_id and secret_access_key are wanted."
    }
    precondition {
      condition     = !local.is_private || var.create_load_balancer
      error_message = "VPC_ENDPOINT_SERVICE wants create_load_balancer."
    }
  }

  depends_on = [
    aws_vpc_endpoint_service_allowed_principal.kms,
    aws_vpc_endpoint_service_private_dns_verification.xksd,
    aws_route53_record.public,
  ]
}

resource "aws_kms_key" "xks" {
  for_each = var.keys

  description             = "${each.key}, held outside of AWS as ${each.value}"
  custom_key_store_id     = local.key_store_id
  xks_key_id              = each.value
  key_usage               = "ENCRYPT_DECRYPT"
  policy                  = var.key_policy
  deletion_window_in_days = 30
  tags                    = var.tags

  lifecycle {
    precondition {
      condition     = local.key_store_id != null
      error_message = "Keys want a key store, by register or custom_key_store_id."
    }
  }
}

resource "aws_kms_alias" "xks" {
  for_each = var.keys

  name          = "alias/${each.key}"
  target_key_id = aws_kms_key.xks[each.key].key_id
}
