//! Named stories, each a few lines. Every rule is checked along the way; every bug that was found has its story here.

mod consumers;
mod crashes;
mod hosts;
mod operations;
mod operator;
mod outages;
mod several;
mod sleep;
