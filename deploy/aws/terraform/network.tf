locals {
  is_private = var.connectivity == "VPC_ENDPOINT_SERVICE"
  balancers  = var.create_load_balancer ? 1 : 0
  services   = var.create_load_balancer && local.is_private ? 1 : 0
}

data "aws_region" "current" {}

# TCP only: TLS is xksd's own, to the end, and so is the check of KMS's client certificate.
resource "aws_lb" "xksd" {
  count = local.balancers

  name                             = "${var.name}-xksd"
  load_balancer_type               = "network"
  internal                         = local.is_private
  subnets                          = var.subnet_ids
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
  tags                             = var.tags

  lifecycle {
    precondition {
      condition     = var.vpc_id != null && length(var.subnet_ids) >= 2
      error_message = "The load balancer wants vpc_id and at least two subnet_ids, in different Availability Zones."
    }
  }
}

resource "aws_lb_target_group" "xksd" {
  count = local.balancers

  name              = "${var.name}-xksd"
  target_type       = "ip"
  vpc_id            = var.vpc_id
  protocol          = "TCP"
  port              = var.target_port
  proxy_protocol_v2 = var.proxy_protocol
  tags              = var.tags

  # An instance that leaves answers 503 here and serves on for server.drain.delay: longer than the
  # load balancer needs to notice, 2 times 5 seconds.
  health_check {
    protocol            = "HTTP"
    port                = tostring(var.health_port)
    path                = "/readyz"
    matcher             = "200"
    interval            = 5
    timeout             = 2
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_target_group_attachment" "xksd" {
  for_each = var.create_load_balancer ? var.targets : []

  target_group_arn = aws_lb_target_group.xksd[0].arn
  target_id        = each.value
  port             = var.target_port
}

resource "aws_lb_listener" "xksd" {
  count = local.balancers

  load_balancer_arn = aws_lb.xksd[0].arn
  protocol          = "TCP"
  port              = 443
  tags              = var.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.xksd[0].arn
  }
}

resource "aws_route53_record" "public" {
  count = var.create_load_balancer && !local.is_private && var.route53_zone_id != null ? 1 : 0

  zone_id = var.route53_zone_id
  name    = var.domain_name
  type    = "A"

  alias {
    name                   = aws_lb.xksd[0].dns_name
    zone_id                = aws_lb.xksd[0].zone_id
    evaluate_target_health = false
  }
}

# --- VPC endpoint service

resource "aws_vpc_endpoint_service" "xksd" {
  count = local.services

  network_load_balancer_arns = [aws_lb.xksd[0].arn]
  private_dns_name           = var.domain_name
  # KMS cannot connect where somebody has to accept it.
  acceptance_required = false
  tags                = merge(var.tags, { Name = "${var.name}-xksd" })

  depends_on = [aws_lb_listener.xksd]
}

resource "aws_vpc_endpoint_service_allowed_principal" "kms" {
  count = local.services

  vpc_endpoint_service_id = aws_vpc_endpoint_service.xksd[0].id
  principal_arn           = "cks.kms.${data.aws_region.current.region}.amazonaws.com"
}

resource "aws_route53_record" "verification" {
  count = local.services == 1 && var.route53_zone_id != null ? 1 : 0

  zone_id = var.route53_zone_id
  name    = "${aws_vpc_endpoint_service.xksd[0].private_dns_name_configuration[0].name}.${var.domain_name}"
  type    = aws_vpc_endpoint_service.xksd[0].private_dns_name_configuration[0].type
  ttl     = 1800
  records = [aws_vpc_endpoint_service.xksd[0].private_dns_name_configuration[0].value]
}

resource "aws_vpc_endpoint_service_private_dns_verification" "xksd" {
  count = local.services == 1 && var.route53_zone_id != null ? 1 : 0

  service_id            = aws_vpc_endpoint_service.xksd[0].id
  wait_for_verification = true

  depends_on = [aws_route53_record.verification]
}
