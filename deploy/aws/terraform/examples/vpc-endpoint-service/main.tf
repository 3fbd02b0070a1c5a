# xksd at two addresses of a VPC, reached by KMS through a VPC endpoint service.

provider "aws" {
  region = "eu-central-1"
}

variable "vpc_id" {
  description = "VPC of xksd."
  type        = string
}

variable "subnet_ids" {
  description = "Two private subnets in different Availability Zones."
  type        = list(string)
}

variable "route53_zone_id" {
  description = "Public zone of example.com."
  type        = string
}

# Set by TF_VAR_custom_key_store_id once the key store has been made: docs/aws.md, step 5.
variable "custom_key_store_id" {
  description = "Id of the key store, made by the AWS CLI so that no secret is in the state."
  type        = string
  default     = null
}

module "xks" {
  source = "../.."

  name                = "demo"
  connectivity        = "VPC_ENDPOINT_SERVICE"
  domain_name         = "xks.example.com"
  uri_path            = "/demo/kms/xks/v1"
  vpc_id              = var.vpc_id
  subnet_ids          = var.subnet_ids
  targets             = ["10.0.1.10", "10.0.2.10"]
  route53_zone_id     = var.route53_zone_id
  custom_key_store_id = var.custom_key_store_id
  create_alarms       = var.custom_key_store_id != null
  keys                = var.custom_key_store_id == null ? {} : { demo = "demo-key" }
}

output "vpc_endpoint_service_name" {
  description = "For aws kms create-custom-key-store."
  value       = module.xks.vpc_endpoint_service_name
}
