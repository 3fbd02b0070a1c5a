output "custom_key_store_id" {
  description = "What aws kms connect-custom-key-store wants."
  value       = local.key_store_id
}

output "load_balancer_dns_name" {
  description = "Where domain_name has to lead, with PUBLIC_ENDPOINT."
  value       = one(aws_lb.xksd[*].dns_name)
}

output "target_group_arn" {
  description = "For whatever registers the instances of xksd."
  value       = one(aws_lb_target_group.xksd[*].arn)
}

output "vpc_endpoint_service_name" {
  description = "XksProxyVpcEndpointServiceName."
  value       = one(aws_vpc_endpoint_service.xksd[*].service_name)
}

output "vpc_endpoint_service_id" {
  description = "For aws ec2 start-vpc-endpoint-service-private-dns-verification."
  value       = one(aws_vpc_endpoint_service.xksd[*].id)
}

output "private_dns_verification" {
  description = "TXT record that proves that domain_name is yours; made by this module if route53_zone_id is set."
  value       = one(aws_vpc_endpoint_service.xksd[*].private_dns_name_configuration)
}

output "key_arns" {
  description = "ARNs of the KMS keys, by alias."
  value       = { for alias, key in aws_kms_key.xks : alias => key.arn }
}
