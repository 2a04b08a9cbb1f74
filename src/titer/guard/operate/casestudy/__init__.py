"""`titer guard casestudy`: a virtual hospital on loopback, attacked, with one layer of defence more in each row."""
