# xksd at two addresses of a VPC, reached by KMS over the Internet; Terraform makes the key store, so that
# its first secret is in the state until it is rotated.

provider "aws" {
  region = "eu-central-1"
}

variable "vpc_id" {
  description = "VPC of xksd."
  type        = string
}

variable "subnet_ids" {
  description = "Two public subnets in different Availability Zones."
  type        = list(string)
}

variable "route53_zone_id" {
  description = "Public zone of example.com."
  type        = string
}

variable "access_key_id" {
  description = "From xksd credentials create."
  type        = string
}

variable "secret_access_key" {
  description = "The same: set TF_VAR_secret_access_key, write it nowhere."
  type        = string
  sensitive   = true
}

variable "is_connected" {
  description = "True once aws kms connect-custom-key-store has succeeded; keys are made then."
  type        = bool
  default     = false
}

module "xks" {
  source = "../.."

  name              = "demo"
  connectivity      = "PUBLIC_ENDPOINT"
  domain_name       = "xks.example.com"
  uri_path          = "/demo/kms/xks/v1"
  vpc_id            = var.vpc_id
  subnet_ids        = var.subnet_ids
  targets           = ["10.0.1.10", "10.0.2.10"]
  route53_zone_id   = var.route53_zone_id
  register          = true
  access_key_id     = var.access_key_id
  secret_access_key = var.secret_access_key
  create_alarms     = true
  keys              = var.is_connected ? { demo = "demo-key" } : {}
}

output "custom_key_store_id" {
  description = "For aws kms connect-custom-key-store."
  value       = module.xks.custom_key_store_id
}
