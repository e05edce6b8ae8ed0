# Constants of the statistics' tests, from R: signed-rank tests (stats, coin) and a mixed model (lme4).
#   Rscript benchmarks/r_constants.R
# Debian: r-base-core r-cran-coin r-cran-lme4
suppressMessages({library(coin); library(lme4)})
show <- function(name, p) cat(sprintf("%s %.15g\n", name, p))
plain <- c(0.11, -0.23, 0.35, 0.47, -0.05, 0.61, 0.72, 0.08, 0.94, -0.13)
ties <- c(0.1, 0.1, -0.1, 0.4, 0.5, -0.5, 0.7, 0.2, 0.2)
zeros <- c(0, 0, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0, -0.1)
long <- (((1:50) * 37) %% 53 - 20) / 100  # with ties of magnitude and a zero
show("wilcox plain", wilcox.test(plain, exact = TRUE)$p.value)
w <- wilcox.test(plain, exact = TRUE, conf.int = TRUE)
show("wilcox plain estimate", w$estimate); show("wilcox plain low", w$conf.int[1]); show("wilcox plain high", w$conf.int[2])
for (d in list(list("plain", plain), list("ties", ties), list("zeros", zeros), list("long", long)))
  for (side in c("two.sided", "greater"))
    show(paste("coin", d[[1]], side), pvalue(wilcoxsign_test(d[[2]] ~ rep(0, length(d[[2]])), distribution = "exact",
                                                          zero.method = "Pratt", alternative = side)))
# ten patients in each of eight data sets, two levels; effects that differ between data sets
n <- 160
data <- data.frame(set = factor(rep(1:8, each = 20)), patient = factor(rep(1:80, each = 2)), level = rep(c("a", "b"), 80))
i <- 0:(n - 1)
data$value <- 0.5 + 0.04 * sin(as.integer(data$set)) + 0.05 * sin(3 * as.integer(data$patient)) +
  (data$level == "b") * (0.06 + 0.05 * cos(5 * as.integer(data$set))) + 0.03 * sin(7 * i + 1)
fit <- lmer(value ~ level + (1 | set) + (1 | set:patient) + (0 + dummy(level, "a") | set) + (0 + dummy(level, "b") | set),
            data, REML = TRUE)
show("lme4 estimate", fixef(fit)["levelb"]); show("lme4 error", sqrt(vcov(fit)["levelb", "levelb"]))
