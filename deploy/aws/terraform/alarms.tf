# KMS counts by operation, kind of error and more, and an alarm on a metric has to name every
# dimension; a query of Metrics Insights sums over those that it does not name.

locals {
  queries = {
    errors = {
      sql         = "SELECT SUM(XksProxyErrors) FROM \"AWS/KMS\" WHERE CustomKeyStoreId = '%s' AND ErrorType != 'N/A'"
      comparison  = "GreaterThanThreshold"
      threshold   = var.errors_per_minute
      period      = 60
      periods     = 5
      description = "KMS gets errors from xksd, or no answer in 250 ms. docs/operations.md has a row for each error."
    }
    latency = {
      sql         = "SELECT AVG(XksProxyLatency) FROM \"AWS/KMS\" WHERE CustomKeyStoreId = '%s'"
      comparison  = "GreaterThanThreshold"
      threshold   = var.latency_milliseconds
      period      = 300
      periods     = 2
      description = "KMS waits long for xksd. If xksd's own histograms do not show it, it is the network."
    }
    certificate = {
      sql         = "SELECT MIN(XksProxyCertificateDaysToExpire) FROM \"AWS/KMS\" WHERE CustomKeyStoreId = '%s'"
      comparison  = "LessThanThreshold"
      threshold   = var.certificate_days
      period      = 3600
      periods     = 1
      description = "The certificate of xksd has to be renewed: without a valid one KMS does not connect."
    }
  }

  states = var.create_alarms ? toset(["Degraded", "Unavailable"]) : []
}

resource "aws_cloudwatch_metric_alarm" "query" {
  for_each = var.create_alarms ? local.queries : {}

  alarm_name          = "${var.name}-xks-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags

  metric_query {
    id          = "q1"
    expression  = format(each.value.sql, local.key_store_id)
    period      = each.value.period
    return_data = true
  }

  lifecycle {
    precondition {
      condition     = local.key_store_id != null
      error_message = "Alarms want a key store, by register or custom_key_store_id."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "credential" {
  count = var.create_alarms ? 1 : 0

  alarm_name          = "${var.name}-xks-credential"
  alarm_description   = "KMS has had its credential for long: docs/operations.md, Rotating credentials."
  namespace           = "AWS/KMS"
  metric_name         = "XksProxyCredentialAge"
  dimensions          = { CustomKeyStoreId = local.key_store_id }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.credential_days
  period              = 3600
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "state" {
  for_each = local.states

  alarm_name        = "${var.name}-xks-${lower(each.value)}"
  alarm_description = "xksd tells KMS of HSM tokens that are ${lower(each.value)}: xksd status names them."
  namespace         = "AWS/KMS"
  metric_name       = "XksExternalKeyManagerStates"
  dimensions = {
    CustomKeyStoreId           = local.key_store_id
    XksExternalKeyManagerState = each.value
  }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}
