# Values of R that the tests of medsam_nb/statistics hold as constants.
#
#     Rscript benchmarks/reference_values.R
#
# R 4.2.2, coin 1.4-2, lme4 1.1-31 (Debian 12: r-base-core r-cran-coin r-cran-lme4). The data stand here and in
# the tests; nothing is random.
suppressPackageStartupMessages({
  library(coin)
  library(lme4)
})
options(digits = 17)
show <- function(name, value) cat(sprintf("%-44s %.15g\n", name, value))

# --- Wilcoxon's signed-rank test -------------------------------------------------------------------------
plain <- c(0.11, 0.24, 0.37, -0.05, 0.62, -0.18, 0.43, 0.29, 0.07, -0.33)
tied <- c(0.1, 0.1, -0.1, 0.4, 0.5, 0.6, 0.7, -0.2, 0.2, 0.3, 0.3, 0.1)
zeros <- c(0, 0, 0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.2, 0, -0.1)
fifty <- sin(1:50) / 10 + 0.05 # no ties, no zeros
for (side in c("two.sided", "greater", "less")) {
  show(paste("wilcox.test exact, plain,", side), wilcox.test(plain, alternative = side, exact = TRUE)$p.value)
  show(paste("wilcox.test exact, fifty,", side), wilcox.test(fifty, alternative = side, exact = TRUE)$p.value)
}
pratt <- function(d, side) {
  pvalue(wilcoxsign_test(d ~ rep(0, length(d)),
    distribution = "exact", zero.method = "Pratt", alternative = side
  ))
}
for (side in c("two.sided", "greater", "less")) {
  show(paste("coin exact, Pratt, tied,", side), pratt(tied, side))
  show(paste("coin exact, Pratt, zeros,", side), pratt(zeros, side))
}

# --- the sign-change test of a mean, by all changes of sign ----------------------------------------------
mean_signs <- function(d, w, null = 0) {
  parts <- (d - null) * w
  signs <- as.matrix(expand.grid(rep(list(c(-1, 1)), length(d))))
  sums <- signs %*% abs(parts)
  c(greater = mean(sums >= sum(parts) - 1e-12), less = mean(sums <= sum(parts) + 1e-12))
}
w <- c(rep(1 / 20, 10)) # ten in one set, and two in another
sets <- c(plain, 0.02, -0.08)
weights <- c(rep(1 / 20, 10), 1 / 4, 1 / 4)
show("sign changes, one set, greater", mean_signs(plain, rep(0.1, 10))["greater"])
show("sign changes, two sets, greater", mean_signs(sets, weights)["greater"])
show("sign changes, two sets, less, null 0.1", mean_signs(sets, weights, 0.1)["less"])

# --- t over means of data sets, two one-sided tests ------------------------------------------------------
means <- c(0.031, 0.052, -0.012, 0.044, 0.027, 0.061, 0.018)
t <- t.test(means)
show("t, means of seven sets, p", t$p.value)
show("t, means of seven sets, low", t$conf.int[1])
show("t, means of seven sets, high", t$conf.int[2])

# --- the mixed model -------------------------------------------------------------------------------------
# Eight data sets of 3 to 10 patients, two levels; the effect varies between data sets.
sizes <- c(3, 4, 5, 6, 7, 8, 9, 10)
rows <- do.call(rbind, lapply(seq_along(sizes), function(s) {
  p <- seq_len(sizes[s])
  base <- 0.5 + 0.04 * cos(2 * s) + 0.06 * sin(3 * p + s)
  effect <- 0.05 + 0.03 * sin(5 * s)
  noise <- 0.03 * cos(7 * p + 2 * s)
  data.frame(
    data_set = paste0("s", s), patient = paste0("s", s, "p", p),
    value = c(base, base + effect + noise), level = rep(c("a", "b"), each = sizes[s])
  )
}))
full <- lmer(value ~ level + (1 | data_set) + (1 | data_set:level) + (1 | patient), rows)
show("lmer full, estimate", fixef(full)["levelb"])
show("lmer full, standard error", sqrt(vcov(full)["levelb", "levelb"]))
wide <- reshape(rows, idvar = c("data_set", "patient"), timevar = "level", direction = "wide")
wide$d <- wide$value.b - wide$value.a
slopes <- lmer(d ~ 1 + (1 | data_set), wide)
show("lmer of differences, estimate", fixef(slopes)[1])
show("lmer of differences, standard error", sqrt(vcov(slopes)[1, 1]))
show("lmer of differences, SD between sets", attr(VarCorr(slopes)$data_set, "stddev"))
three <- droplevels(subset(wide, data_set %in% c("s1", "s2", "s3")))
fixed <- lm(d ~ data_set, three, contrasts = list(data_set = "contr.sum"))
show("three sets as fixed effects, estimate", coef(summary(fixed))[1, 1])
show("three sets as fixed effects, p", coef(summary(fixed))[1, 4])
