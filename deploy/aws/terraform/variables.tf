variable "name" {
  description = "Name of the key store in KMS, and the beginning of the names of all else."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9-]{1,20}$", var.name))
    error_message = "The name is 1 to 20 letters, digits and hyphens: names of load balancers have 32 characters at most."
  }
}

variable "connectivity" {
  description = "How KMS reaches xksd: PUBLIC_ENDPOINT or VPC_ENDPOINT_SERVICE."
  type        = string

  validation {
    condition     = contains(["PUBLIC_ENDPOINT", "VPC_ENDPOINT_SERVICE"], var.connectivity)
    error_message = "The connectivity is PUBLIC_ENDPOINT or VPC_ENDPOINT_SERVICE."
  }
}

variable "domain_name" {
  description = "Name that xksd's certificate is for, and that KMS calls on port 443."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9-]+(\\.[a-zA-Z0-9-]+)+$", var.domain_name)) && length(var.domain_name) <= 120
    error_message = "The domain name is a fully qualified name, without https:// and without a port."
  }
}

variable "uri_path" {
  description = "XksProxyUriPath: the prefix of the key store in xksd's configuration, and /kms/xks/v1."
  type        = string

  validation {
    condition     = can(regex("^(/[a-zA-Z0-9/_-]+)?/kms/xks/v1$", var.uri_path)) && length(var.uri_path) <= 128
    error_message = "The path is /kms/xks/v1 with at most a prefix before it: /demo/kms/xks/v1."
  }
}

# --- load balancer

variable "create_load_balancer" {
  description = "Whether a Network Load Balancer is made. Without one, connectivity is PUBLIC_ENDPOINT and domain_name leads to xksd by other means."
  type        = bool
  default     = true
}

variable "vpc_id" {
  description = "VPC of the load balancer."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Subnets of the load balancer, one in each of at least two Availability Zones; KMS asks for two."
  type        = list(string)
  default     = []
}

variable "targets" {
  description = "IP addresses of the instances of xksd, in the VPC or reachable from it. Empty: something else registers them (Kubernetes, an Auto Scaling group)."
  type        = set(string)
  default     = []
}

variable "target_port" {
  description = "Port of server.listen."
  type        = number
  default     = 8443

  validation {
    condition     = var.target_port > 0 && var.target_port < 65536
    error_message = "The port is 1 to 65535."
  }
}

variable "health_port" {
  description = "Port of ops.listen, which answers /readyz."
  type        = number
  default     = 9443

  validation {
    condition     = var.health_port > 0 && var.health_port < 65536
    error_message = "The port is 1 to 65535."
  }
}

variable "proxy_protocol" {
  description = "Whether the load balancer sends PROXY protocol v2, for logs with the true address. Set server.proxy_protocol_from first."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether the load balancer is kept from being deleted."
  type        = bool
  default     = true
}

variable "route53_zone_id" {
  description = "Public Route 53 zone of domain_name, for the record that verifies the private DNS name or, with PUBLIC_ENDPOINT, that leads to the load balancer. Null: made elsewhere."
  type        = string
  default     = null
}

# --- KMS

variable "register" {
  description = "Whether the key store is made in KMS. Its first secret then stays in Terraform's state: docs/aws.md."
  type        = bool
  default     = false
}

variable "custom_key_store_id" {
  description = "Id of a key store that was made without Terraform, for alarms and keys."
  type        = string
  default     = null

  validation {
    condition     = var.custom_key_store_id == null || can(regex("^cks-[a-zA-Z0-9]+$", var.custom_key_store_id))
    error_message = "The id begins with cks-."
  }
}

variable "access_key_id" {
  description = "Access key id of the credential that KMS signs with, by xksd credentials create."
  type        = string
  default     = null

  validation {
    condition     = var.access_key_id == null || can(regex("^[A-Z2-7]{20,30}$", var.access_key_id))
    error_message = "The access key id is 20 to 30 characters of A-Z and 2-7."
  }
}

variable "secret_access_key" {
  description = "Secret of that credential. It lands in Terraform's state and plan: docs/aws.md."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.secret_access_key == null || can(regex("^[a-zA-Z0-9/+=]{43,64}$", var.secret_access_key))
    error_message = "The secret is 43 to 64 characters of Base64."
  }
}

variable "keys" {
  description = "KMS keys: alias, without alias/, and external key id. Only once the key store is connected."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id in values(var.keys) : can(regex("^[a-zA-Z0-9._-]{1,128}$", id))])
    error_message = "An external key id is 1 to 128 characters of A-Z a-z 0-9 - . _."
  }
}

variable "key_policy" {
  description = "Policy of the keys, as JSON. Null: that of KMS, which leaves it to IAM policies of the account."
  type        = string
  default     = null
}

# --- alarms

variable "create_alarms" {
  description = "Whether CloudWatch alarms are made; wants a key store, by register or custom_key_store_id."
  type        = bool
  default     = false
}

variable "alarm_actions" {
  description = "ARNs of what alarms tell, SNS topics for example."
  type        = list(string)
  default     = []
}

variable "errors_per_minute" {
  description = "How many errors of the proxy in a minute are too many."
  type        = number
  default     = 5
}

variable "latency_milliseconds" {
  description = "Which mean latency over five minutes, as KMS sees it, is too long; it gives up at 250."
  type        = number
  default     = 100
}

variable "certificate_days" {
  description = "How many days before its end the certificate is to be renewed."
  type        = number
  default     = 21
}

variable "credential_days" {
  description = "After how many days the credential is to be rotated."
  type        = number
  default     = 180
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
